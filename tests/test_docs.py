"""What the documentation tells to type is right usage, and what it names is there."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import click
import pytest

from converters import audit
from converters.cli.commands import convert, verify
from verify.compare import FACTOR

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
COMMANDS = {"bit-convert": convert, "bit-verify": verify}
IN_TEXT = re.compile(r"`((?:bit-convert|bit-verify) [^`…]*)`")


def typed() -> list[tuple[str, str]]:
    """(page, command line) of each line that is indented or in a block of bash."""
    found = []
    for page, text in TEXTS.items():
        shown = [line[4:].removeprefix("$ ") for line in text.splitlines() if line.startswith("    ")]
        blocks = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
        lines = [line for line in [*shown, *blocks] if line.partition(" ")[0] in COMMANDS and "…" not in line]
        found += [(page, shlex.join(shlex.split(line, comments=True))) for line in lines]
        named = [" ".join(match.split()) for match in IN_TEXT.findall(text)]
        found += [(page, line) for line in named if "-" not in line.rpartition(" ")[2][:1]]  # not an option alone
    return list(dict.fromkeys(found))


def test_pages_tell_what_to_type():
    assert len(typed()) > 40


def provide(command: click.Command, words: list[str]) -> None:
    """Makes the files that options ask for."""
    options = {name: each.type for each in command.params for name in each.opts if isinstance(each.type, click.Path)}
    for option, value in pairwise(words):
        kind = options.get(option)
        if kind is not None and kind.exists:
            place = Path(value)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch() if kind.file_okay and place.suffix else place.mkdir(exist_ok=True)


@pytest.mark.parametrize(("page", "line"), typed(), ids=lambda text: text[:70])
def test_every_command_of_a_page_is_right_usage(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *words = shlex.split(line)
    command = COMMANDS[name]
    if words and words[0] in command.others:
        command, words = command.others[words[0]](), words[1:]
    provide(command, words)
    with suppress(click.exceptions.Exit):  # --help, --version
        command.make_context(name, words)


@pytest.mark.parametrize("page", TEXTS)
def test_what_a_page_leads_to_and_runs_is_there(page):
    place, text = ROOT / page, TEXTS[page]
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    run = re.findall(r"(?:benchmarks|docs)/\w+\.py|tests/[\w/]+\.py", text)
    assert [link for link in links if not (place.parent / link).exists()] == []
    assert [name for name in run if not (ROOT / name).exists()] == []


def test_the_limit_is_the_same_everywhere():
    texts = {**TEXTS, "audit": audit.__doc__}
    for page in ("README.md", "docs/proof.md", "docs/tolerance.md", "docs/vocabulary.md", "audit"):
        assert f"{FACTOR:g}" in texts[page], page
    assert f"of which {FACTOR:g} are allowed" in " ".join(texts["audit"].split())
