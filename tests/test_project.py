"""What surrounds the code: its layers, one version and one address, help of make, one clear line on Windows."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

from converters.cli.commands import convert, verify
from tests.command_line import refused

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("command", [convert, verify], ids=lambda command: command.name)
@pytest.mark.parametrize("arguments", [["BiT-digits"], ["--help"], ["--debug"]], ids=" ".join)
def test_windows_gets_one_clear_line(command, arguments, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    (line,) = refused(2, *arguments, command=command).splitlines()
    assert line.startswith(f"{command.name}: needs Linux or macOS")


@pytest.mark.parametrize("command", ["convert", "verify"])
def test_windows_gets_it_before_anything_that_windows_does_not_have(command):
    program = f"""
import sys
import click, importlib.metadata, subprocess  # as on the system that they run on
sys.platform = "win32"
sys.modules.update(fcntl=None, resource=None, termios=None, pwd=None, grp=None)
from converters.cli.commands import {command}
{command}(["BiT-digits"])
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert "needs Linux or macOS" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_is_cited_is_this_version_at_this_address():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    for line in (
        f"title: {PROJECT['name']}",
        f"version: {PROJECT['version']}",
        f"license: {PROJECT['license']}",
        f"abstract: {PROJECT['description']}",
        f"repository-code: {PROJECT['urls']['Repository']}",
    ):
        assert line in lines


def test_every_target_of_make_is_listed_by_make():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = (line for line in makefile.splitlines() if line.startswith(".PHONY:"))
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in phony.split()[1:]:
        assert f"\n  {target} " in listed


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_extras_that_extras_ask_for_are_there(extra):
    for requirement in PROJECT["optional-dependencies"][extra]:
        if requirement.startswith(PROJECT["name"]):
            named = requirement.partition("[")[2].rstrip("]").split(",")
            assert set(named) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("extra", ["", "test", "docs", "bench"])
def test_lock_names_a_version_and_hashes_of_each_requirement(extra):
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", "")
    locked: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            pin = Requirement(line.partition(" --hash")[0])
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), f"{pin.name} has no hash: make lock"
            locked.setdefault(canonicalize_name(pin.name), set()).update(each.version for each in pin.specifier)
    wanted = PROJECT["dependencies"] if not extra else PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        versions = locked.get(canonicalize_name(requirement.name), set())
        own = requirement.name == PROJECT["name"]
        assert own or (versions and all(map(requirement.specifier.contains, versions))), f"{requirement}: make lock"


CODE = sorted(path for package in ("bit_ref", "converters", "verify") for path in (ROOT / package).rglob("*.py"))
TEXTS = [
    *CODE,
    *sorted((ROOT / "verify").rglob("*.jinja")),
    *sorted((ROOT / "converters").rglob("*.jinja")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
]
RETIRED = {
    "again": r"\banew\b|\bafresh\b",
    "exactness": r"answer[ `]*--exact|--exact[ `]*answer|which answer",
    "error is 8.5 × float32 rounding (limit 2.5 ×)": r"floors allowed|of the [\d.]+ floors|[\d.}] floors\b",
    "exceeds its limit": r"\bdepart(s|ing|ed)\b",
    "oracle": r"\bwitness|\btestimon",
    "compare": r"\bhear\b|\bheard\b",
    "DEFAULT": r"\bUSUAL\b",
    "inconclusive_reasons": r"\bgrounds\b",
}
"""What is said now → what was said, as a pattern."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_words_of_our_own_do_not_come_back(path):
    text = path.read_text(encoding="utf-8")
    found = {f"{match[0]!r}: {word}" for word, pattern in RETIRED.items() for match in re.finditer(pattern, text)}
    assert not found


@cache
def nodes(path: Path) -> list[ast.AST]:
    return [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]


CLAUSE = re.compile(r"(What|Who|Which|Of|Likewise|By|Where|How)\b")
"""How a docstring begins that is read only after the line above it, or that is a riddle."""


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_docstrings_open_with_a_sentence(path):
    strings = (
        node.value.value
        for node in nodes(path)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )
    assert not [text.partition("\n")[0] for text in strings if CLAUSE.match(text)]


TERMS = "floor limit reader oracle exactness layout checkpoint source variant folder release version"


@pytest.mark.parametrize("term", TERMS.split())
def test_a_term_is_defined_once(term):
    table = (ROOT / "docs/vocabulary.md").read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith(f"| {term} |") for line in table) == 1


PACKAGES = ("converters", "verify", "bit_ref")
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}
MOST_PARAMETERS = 8
FRONT_DOOR = {"converters.api"}
MIRRORS = {("bit_ref.config", "__init__")}
"""Methods that have the parameters of transformers' own."""


def imports(module: str) -> Iterator[str]:
    """The modules of ours that a module imports, anywhere in it."""
    for node in nodes(SOURCES[module]):
        named = []
        if isinstance(node, ast.ImportFrom) and node.module:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        for name in named:
            if name.partition(".")[0] in PACKAGES:
                yield name if name in SOURCES else name.rpartition(".")[0] or name


def part(module: str) -> str:
    """``verify.report`` of verify.report.parity: what stands in one line of CONTRIBUTING.md, a package or a module."""
    return ".".join(module.split(".")[:2])


@cache
def dependencies() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for module in SOURCES:
        found.setdefault(part(module), set()).update({part(name) for name in imports(module)} - {part(module)})
    return found


def test_no_circle_of_packages():
    assert list(TopologicalSorter(dependencies()).static_order())
    roots = {package: {name.partition(".")[0] for name in found} for package, found in dependencies().items()}
    for package, below in roots.items():
        assert below <= set(PACKAGES[PACKAGES.index(package.partition(".")[0]) :]), package


@pytest.mark.parametrize("package", PACKAGES[:2])
def test_packages_import_downward_as_contributors_are_told(package):
    (line,) = re.findall(rf"^    {package}/ +(.*)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    order = [f"{package}.{name.removesuffix('.py').rstrip('/')}" for name in line.split()]
    assert set(order) <= dependencies().keys()
    for place, name in enumerate(order):
        above = set(order[:place])
        assert not dependencies()[name] & above, f"{name} imports what stands before it"


def test_no_function_has_many_parameters():
    many = []
    for module, path in SOURCES.items():
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                allowed = module in FRONT_DOOR or (module, node.name) in MIRRORS
                if len([name for name in arguments if name not in ("self", "cls")]) > MOST_PARAMETERS and not allowed:
                    many.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert many == []


CHANGED_OUTSIDE = {
    "converters.api": "an exception",
    "converters.cli.output": "settings of the process",
    "converters.cli.watching": "what the screen shows",
    "converters.download.answers": "a request of an HTTP library",
    "converters.download.hub_client": "a client of an HTTP library",
    "converters.download.kaggle": "kagglehub's settings",
    "converters.errors": "an exception",
    "converters.failures": "an exception",
    "converters.redaction": "an exception",
    "converters.release.engine": "where a job is",
    "converters.release.pool": "where a job is",
    "converters.writers.model": "a member of an archive, as zipfile wants it",
    "verify.forward": "evidence, which grows while the oracle walks",
    "verify.oracles.numpy.oracle": "another oracle of the same class",
    "verify.pixels": "an array of NumPy's",
    "verify.tf32": "PyTorch's settings",
}
"""Modules that change what was made elsewhere: what that is."""


@pytest.mark.parametrize("package", PACKAGES[:2])
def test_objects_are_complete_when_they_are_made(package):
    changing = set()
    for module in (name for name in SOURCES if name.split(".")[0] == package):
        for node in nodes(SOURCES[module]):
            sets = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            changed = ast.unparse(node.value) if sets else ""
            sets_by_name = isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr"
            if sets_by_name or (changed and changed.split(".")[0] not in ("self", "cls")):
                changing.add(module)
    assert changing == {module for module in CHANGED_OUTSIDE if module.split(".")[0] == package}


def test_a_class_has_a_name_of_its_own():
    """Whoever looks for it finds one; names that begin with an underscore are a module's own."""
    places: dict[str, list[str]] = {}
    for module in SOURCES:
        for node in nodes(SOURCES[module]):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_has_the_name_of_what_its_package_exports(package):
    """Importing it would put the module in the other's place."""
    exported = set(import_module(package).__all__)
    assert exported
    assert not {name for name in exported if f"{package}.{name}" in SOURCES}
