"""Tutorials, and pages that tell what to type, run as they stand: every block of a page, in its order, in one folder.

Python runs here; of a block of bash, our commands run here and all else in bash; a block of TOML is the file that the
text before it ends in. A command that is to fail says so: ``# exit status 1``.
"""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from converters.cli.commands import convert, verify
from tests.command_line import run

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [*sorted((DOCS / "tutorials").glob("*.md")), DOCS / "upstream.md"]
BLOCK = re.compile(r"(?:`([\w.]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)
COMMANDS = {"bit-convert": convert, "bit-verify": verify}
STATUS = re.compile(r"# exit status (\d+)")


def run_line(line: str) -> None:
    name, *words = shlex.split(line, comments=True)
    if name not in COMMANDS:
        subprocess.run(["bash", "-c", line], check=True)
        return
    result = run(*words, command=COMMANDS[name])
    status = STATUS.search(line)
    assert result.exit_code == (int(status[1]) if status else 0), result.output


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs(page, tmp_path, monkeypatch, capsys):
    import transformers  # noqa: F401 - which the quick tests go without

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    text = page.read_text(encoding="utf-8")
    blocks = [*BLOCK.finditer(text)]
    assert 2 * len(blocks) == text.count("```")
    space: dict[str, object] = {}
    for block in blocks:
        file, language, code = block.groups()
        if language == "python":
            line = text[: block.start(3)].count("\n")
            exec(compile("\n" * line + code, str(page), "exec"), space)
        elif language == "bash":
            for each in code.splitlines():
                run_line(each)
        else:
            assert language == "toml"
            Path(file).write_text(code, encoding="utf-8")
