"""The walks of docs/architecture.md: each stop is called by stops before it, and no file is entered twice."""

import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import converters
from converters.cli.commands import verify
from tests.checkpoints import make_checkpoint
from tests.command_line import run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
STOP = re.compile(r"^\d+\. `(?P<file>[^`]+)`: `(?P<function>[^`]+)`", re.M)
MOST = 11
"""Stops of a walk."""
OURS = tuple(str(ROOT / package) + "/" for package in ("converters", "verify", "bit_ref"))

Stop = tuple[str, str]


def stops(title: str) -> list[Stop]:
    """Of a section of the page: (file, function)."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [(found["file"], found["function"]) for found in STOP.finditer(section)]


class Calls:
    """Notes when each stop is first called, and which of our files wait for it, from the first stop on."""

    def __init__(self, walk: list[Stop]) -> None:
        self.walk, self.door = set(walk), walk[0]
        self.found: dict[Stop, list[str]] = {}

    def __call__(self, frame, event, _) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            stop = self._place(frame)
            if stop in self.walk and stop not in self.found:
                self.found[stop] = self._files(frame)

    def of(self, action: Callable[[], object]) -> dict[Stop, list[str]]:
        before = sys.getprofile()
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            action()
        finally:
            sys.setprofile(before)
            threading.setprofile(before)
        return self.found

    def _files(self, frame) -> list[str]:
        files: list[str] = []
        while frame:
            place = self._place(frame)
            if place and (not files or files[-1] != place[0]):
                files.append(place[0])
            frame = frame.f_back if place != self.door else None
        return files[::-1]

    def _place(self, frame) -> Stop | None:
        """Of a frame of ours; code that is run while modules are imported has no function."""
        code = frame.f_code
        if not code.co_filename.startswith(OURS):
            return None
        return Path(code.co_filename).relative_to(ROOT).as_posix(), code.co_qualname


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    np.savez(tmp_path / "tiny.npz", **make_checkpoint((1,), 32, 5, mids=(32,)))
    return tmp_path / "tiny.npz"


def one_tensor(checkpoint: Path, out: Path) -> Callable[[], object]:
    return lambda: converters.convert(checkpoint=checkpoint, output=out, verify=False)


def one_option(checkpoint: Path, out: Path) -> Callable[[], object]:
    return lambda: run("--exact", "logits", "--no-verify", "--checkpoint", checkpoint, "--output", out)


def one_fault(checkpoint: Path, folder: Path) -> Callable[[], object]:
    """In a layout that no stock library loads, so that none is imported."""
    run("--layout", "original", "--no-verify", "--checkpoint", checkpoint, "--output", folder)
    stored = load_file(folder / "model.safetensors")
    one, other = (name for name in stored if name.endswith(("gn2.weight", "gn3.weight")))
    stored[one], stored[other] = stored[other], stored[one]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return lambda: run(folder, "--against", checkpoint, "--report", folder / "parity", command=verify)


WALKS = {"One tensor": one_tensor, "One option": one_option, "One fault": one_fault}


@pytest.mark.parametrize("title", ["One tensor", "One option", pytest.param("One fault", marks=pytest.mark.slow)])
def test_walk_is_the_way_that_the_code_goes(title, checkpoint, tmp_path):
    walk = stops(title)
    WALKS[title](checkpoint, tmp_path / "before")()  # imports, which would take minutes while calls are noted
    waiting = Calls(walk).of(WALKS[title](checkpoint, tmp_path / "out"))
    assert list(waiting) == walk, "the stops in the order in which they are first called"
    files = [file for file, _ in walk]
    for stop, callers in waiting.items():
        so_far = files[: files.index(stop[0]) + 1]
        assert [file for file in so_far if file in callers] == callers, f"on the way to {stop}"


@pytest.mark.parametrize("title", WALKS)
def test_walk_is_short_and_never_returns(title):
    files = [file for file, _ in stops(title)]
    assert 3 < len(files) <= MOST
    assert len(set(files)) == len(files)


def test_every_walk_of_the_page_is_walked():
    assert re.findall(r"^## (One .*)$", PAGE, re.M) == list(WALKS)
    listed = [line for line in PAGE.splitlines() if re.match(r"\d+\. ", line)]
    assert len(listed) == sum(len(stops(title)) for title in WALKS)
