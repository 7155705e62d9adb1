"""Pages for people: one file of HTML each, which asks nothing of the network.

template, values → ``page()`` (with page.css, which all of them share) → text
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

STYLE = "page.css"


def page(package: str, name: str, script: str = "", **values: Any) -> str:
    """Returns the page of the template ``name`` that lies in ``package``.

    Values are escaped. ``script``, JavaScript of ours, is the only one that a browser runs in it: the page's policy
    names its digest, and allows nothing to be fetched or sent.
    """
    from markupsafe import Markup

    style = _text("verify.report", STYLE)
    rules = ["default-src 'none'", "style-src 'unsafe-inline'", "base-uri 'none'", "form-action 'none'"]
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        rules.append(f"script-src 'sha256-{digest}'")
    policy = Markup("; ".join(rules))  # the quotes are plain ones, in an attribute of double quotes
    text: str = _template(package, name).render(style=Markup(style), script=Markup(script), policy=policy, **values)
    return text


@cache
def _template(package: str, name: str) -> Any:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text(package, name))


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
