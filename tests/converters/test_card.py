"""The card's Parity section, and the Markdown of an audit: their figures are the report's, their commands work."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from converters.cli.commands import convert, verify
from tests.checkpoints import make_checkpoint
from tests.command_line import audited, run
from verify.compare import FACTOR

BADGE = "[![Parity: {0}](https://img.shields.io/badge/parity-{0}-{1})](parity.json)"


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    parent = tmp_path_factory.mktemp("models")
    assert run("--variant", "BiT-digits", "--output", parent, "--quiet").exit_code == 0
    return parent / "BiT-digits"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "my source.npz"
    np.savez(path, **make_checkpoint((1, 1), 32, 3, seed=5, kernel_std=1e-3, mids=(32, 64)))
    return path


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def rows(text: str) -> dict[str, list[str]]:
    """First cell of each row of a table → the others."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in cells}


def commands(text: str) -> list[list[str]]:
    """What the blocks of bash tell to type."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line[:1] != "#"]


def two_digits(value: float) -> str:
    return f"{value:.2g}"


def test_badge_says_the_verdict_in_words_and_leads_to_the_report(digits):
    title, *_, badge = card(digits).split("\n\n")[1:3]
    assert title.endswith("# BiT-digits")
    assert badge == BADGE.format("passed", "brightgreen")
    assert (digits / "parity.json").is_file()


def test_figures_are_the_reports(digits):
    text, report = card(digits), json.loads((digits / "parity.json").read_text())
    table = rows(text)
    assert table["largest error of the logits"] == [two_digits(report["max_abs_error"])]
    assert table["floor: the same error of the oracle computed in float32"] == [two_digits(report["floor"])]
    (ratio,) = table[f"ratio: largest error of any tensor divided by its floor, limit {FACTOR:g}"]
    figure, layer = re.fullmatch(r"(\S+), at `(\S+)`", ratio).groups()
    assert figure == two_digits(report["ratio"])
    assert [each["ratio"] for each in report["layers"] if each["name"] == layer] == [report["ratio"]]
    assert table["stored tensors"][0].startswith("45 of 45 hold, bit for bit")
    assert report["source"]["sha256"] in table["source"][0]
    own, stock = report["readers"]
    assert table["bit_ref, declared"] == [
        "passed",
        "1e-10",
        *map(two_digits, (own["max_abs_error"], own["ratio"])),
        "–",
    ]
    off = [*map(two_digits, (stock["max_abs_error"], stock["ratio"])), "–"]
    assert table["stock transformers and timm (their arithmetic)"] == ["passed", "1e-08", *off]
    assert f"stock transformers and timm (their arithmetic): {stock['reason']}." in text
    assert "NumPy float64" in text


def test_a_stranger_can_type_the_commands(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(digits)
    typed = commands(card(digits))
    assert [words[0] for words in typed] == ["bit-verify"] * 3
    check, check_source, audit = (words[1:] for words in typed)
    assert "holds (figures and digest, 3 files and 45 tensors)" in run(*check, command=verify).stdout
    assert "45 tensors, the checkpoint)" in run(*check_source, command=verify).stdout
    result = run(*audit, "--report", tmp_path / "parity", command=verify)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("BiT-digits against BiT-digits.npz · passed")


def test_commands_name_a_file_as_it_is_called_and_the_padding_that_was_chosen(source, tmp_path):
    options = ("--checkpoint", source, "--pool-padding", "-inf", "--output", tmp_path / "model", "--quiet")
    assert run(*options, command=convert).exit_code == 0
    text = card(tmp_path / "model")
    against = ["--against", "my source.npz", "--pool-padding", "-inf"]
    assert [words[-4:] for words in commands(text)][1:] == [against, against]
    assert re.search(r"moves the logits by up to \S+, and everything else is", text)
    assert "--exact logits" not in text, "which stock libraries could not read either"


def test_what_was_not_verified_has_no_badge(source, tmp_path):
    run("--checkpoint", source, "--output", tmp_path / "model", "--no-verify")
    text = card(tmp_path / "model")
    assert "](" not in text
    assert "Nothing was verified" in text
    assert "bit-verify . --against 'my source.npz'" in text
    assert rows(text)["source"]


@pytest.mark.slow
def test_audit_of_another_port_in_markdown(digits, tmp_path, monkeypatch):
    port = tmp_path / "port"
    port.mkdir()
    for name in ("config.json", "model.safetensors"):
        (port / name).write_bytes((digits / name).read_bytes())
    config = json.loads((port / "config.json").read_text())
    del config["weight_standardization_eps"]
    (port / "config.json").write_text(json.dumps(config))
    arguments = [str(port), "--against", "BiT-digits", "--report", str(tmp_path / "parity"), "--markdown"]
    monkeypatch.setattr("sys.argv", ["bit-verify", *arguments])
    result = run(*arguments, command=verify)
    assert result.exit_code == 1
    text = result.stdout
    assert text.startswith(
        "## port against BiT-digits.npz\n\n"
        + BADGE.format("failed", "red")
        + "\n\nBeyond rounding, but no prediction changed on 360 real images.\n\n**Failed** against NumPy float64"
    )
    assert "- `root`: standardisation epsilon, 1e-08" in text
    assert "at \\[" in text, "an index is no link"
    assert commands(text) == [["bit-verify", *arguments]]
    assert rows(text)["transformers, declared"][0] == "failed"
    again = run("--check", tmp_path / "parity" / "parity.json", "--markdown", command=verify)
    assert again.exit_code == 1
    assert BADGE.format("failed", "red") in again.stdout
    report = audited(port, "BiT-digits", tmp_path / "again")
    assert two_digits(report["ratio"]) in rows(again.stdout)["transformers, declared"]


def test_json_and_markdown_go_to_the_same_place(digits):
    result = run(digits, "--against", "BiT-digits", "--json", "--markdown", command=verify)
    assert result.exit_code == 2
    assert "Leave one out" in result.stderr
