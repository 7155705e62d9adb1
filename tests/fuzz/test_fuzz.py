"""Every reader keeps to the promise on some changed inputs; ``python -m tests.fuzz`` gives it more."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.fuzz import __main__ as fuzz_command
from tests.fuzz.__main__ import fuzz
from tests.fuzz.readers import READERS, Reader


@pytest.fixture(autouse=True)
def usual_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if reader.heavy else ()) for name, reader in READERS.items()]
)
def test_changed_inputs_are_read_or_refused(name: str, tmp_path: Path) -> None:
    result = fuzz(READERS[name], 7, 60, 25, tmp_path / "place", tmp_path / "kept")
    assert result["findings"] == []
    assert result["executions"] > 0


def test_what_breaks_the_promise_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that trusts its input."""
    monkeypatch.setattr(fuzz_command, "LONGEST", 0.1)

    def read(folder: Path) -> None:
        while (folder / "number.txt").read_bytes() == b"loop":
            pass
        if int((folder / "number.txt").read_bytes()) > 1 << 62:
            (folder / "left.txt").touch()

    numbers = (b"2", b"x", b"%d" % (1 << 63), b"loop")
    broken = Reader(lambda: [{"number.txt": b"1"}], {".txt": lambda _, random: random.choice(numbers)}, read, ())
    findings = "".join(fuzz(broken, 1, 60, 30, tmp_path / "place", tmp_path / "kept")["findings"])
    assert "ValueError" in findings
    assert "left.txt" in findings
    assert "Interrupted" in findings
    assert list((tmp_path / "kept").iterdir())
