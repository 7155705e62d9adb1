"""The site that ``make docs`` builds: README, the pages of this folder, and a reference from the docstrings.

Nothing is fetched while it is built. No module is named: the reference follows the packages, wherever modules lie.
"""

import builtins
import re
import tomllib
from pathlib import Path

from sphinx.addnodes import pending_xref

PACKAGES = ("converters", "verify", "bit_ref")
_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _project["name"]
version = release = _project["version"]
author = _project["authors"][0]["name"]
copyright = f"{author}, {_project['license']}"

extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc"]
exclude_patterns = ["reference/*/modules.rst"]
html_theme = "furo"
html_title = f"{project} {version}"
html_theme_options = {
    "source_repository": _project["urls"]["Repository"],
    "source_branch": "main",
    "source_directory": "docs/",
}
myst_heading_anchors = 3

apidoc_modules = [
    {"path": f"../{name}", "destination": f"reference/{name}", "separate_modules": True, "module_first": True}
    for name in PACKAGES
]
autodoc_member_order = "bysource"
# References into the project are checked. Those into other libraries need their inventories, which lie in the network;
# private names and type variables have no entry.
suppress_warnings = ["ref.python"]  # a name that two modules have: either will do
nitpick_ignore_regex = [
    (r"py:.*", rf"(?!({'|'.join(PACKAGES)})\.).*"),
    (r"py:.*", r".*\._\w+"),
    (r"py:.*", r".*\.[A-Z]"),
]


def plain(app, what, name, obj, options, lines):  # type: ignore[no-untyped-def]
    """Docstrings are plain English: ``code``, and what is indented stays as it is; no other mark has a meaning."""
    text, verbatim = [], False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        if indented and not verbatim and number and not lines[number - 1].strip():
            text += ["::", ""]
            verbatim = True
        elif line.strip() and not indented:
            verbatim = False
        text.append(line if verbatim else _escaped(line))
    lines[:] = text


def _escaped(line: str) -> str:
    pieces = re.split(r"(``.+?``)", line)
    return "".join(p if p.startswith("``") else re.sub(r"[*|`\\]|_\b", r"\\\g<0>", p) for p in pieces)


def described_once(app, what, name, obj, skip, options):  # type: ignore[no-untyped-def]
    """What a package below the first hands on is described where it is defined: twice would be an error."""
    here = app.env.temp_data.get("autodoc:module") or ""
    handed_on = here not in PACKAGES and getattr(obj, "__module__", here) != here
    return True if what == "module" and handed_on and isinstance(obj, type) else None


def without_builtins(app, doctree):  # type: ignore[no-untyped-def]
    """``bytes`` is no reference to a method of ours of that name; nor is any name of another package looked for."""
    for reference in [*doctree.findall(pending_xref)]:
        package, *rest = reference["reftarget"].split(".")
        if reference["refdomain"] == "py" and (package not in PACKAGES if rest else hasattr(builtins, package)):
            reference.replace_self(reference.children)


def branch(app, page, template, context, doctree):  # type: ignore[no-untyped-def]
    """The sidebar's tree is open at its page alone: with every branch of every page it takes half of the time."""
    if whole := context.get("toctree"):
        context["toctree"] = lambda **how: whole(**(how | {"collapse": True}))


def setup(app):  # type: ignore[no-untyped-def]
    app.connect("autodoc-process-docstring", plain)
    app.connect("autodoc-skip-member", described_once)
    app.connect("doctree-read", without_builtins)
    app.connect("html-page-context", branch, priority=400)  # the theme asks for it at 500
