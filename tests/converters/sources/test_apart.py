"""A source in a process of its own: whatever becomes of the process is an error that names the file, and soon."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from converters.errors import CheckpointError, Scope, UsageError
from converters.sources import apart
from converters.sources.apart import SourceApart
from converters.sources.base import TensorFile


class Odd(TensorFile):
    """Does what the file says: ``open`` or ``read``, and a deed."""

    format, scheme, looked_for = "odd", "npz", "odd files"

    @classmethod
    def recognises(cls, path, head):
        return True

    @classmethod
    def open(cls, path):
        return cls(path)

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.when, self.deed = path.read_text().split()
        self._do("open")

    def _do(self, when: str) -> None:
        if when != self.when:
            return
        match self.deed:
            case "loops":
                while True:
                    pass
            case "dies":
                os.abort()
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "reserves":
                raise CheckpointError(f"{len(bytearray(1 << 33))} bytes")
            case "refuses":
                raise CheckpointError("no such thing")
            case "misuses":
                raise UsageError("install it")

    @property
    def shapes(self):
        return {"a": (2, 3), "b": (0,)}

    @property
    def files(self):
        return {}

    def read(self, name):
        self._do("read")
        return np.arange(np.prod(self.shapes[name]), dtype=np.float32).reshape(self.shapes[name])

    def close(self):
        pass


class OddApart(SourceApart):
    reader, looked_for = Odd, Odd.looked_for


def written(place: Path, text: str) -> Path:
    path = place / "x.odd"
    path.write_text(text)
    return path


def test_what_the_process_reads_is_what_the_reader_reads(tmp_path):
    with OddApart(written(tmp_path, "never .")) as source:
        assert dict(source.shapes) == {"a": (2, 3), "b": (0,)}
        assert source.read("b").shape == (0,)
        np.testing.assert_array_equal(source.read("a"), [[0, 1, 2], [3, 4, 5]])
        process = source._process
    assert process.returncode is not None


@pytest.mark.parametrize("when", ["open", "read"])
@pytest.mark.parametrize(
    ("deed", "error", "said"),
    [
        ("dies", CheckpointError, "x.odd: .* is damaged: its library ends"),
        ("reserves", CheckpointError, "x.odd: .* is damaged"),
        ("killed", CheckpointError, "was killed"),
        ("refuses", CheckpointError, "no such thing"),
        ("misuses", UsageError, "install it"),
    ],
)
def test_its_end_is_an_error_that_names_the_file(tmp_path, when, deed, error, said):
    with pytest.raises(error, match=said) as caught, OddApart(written(tmp_path, f"{when} {deed}")) as source:
        source.read("a")
    assert (caught.value.scope is Scope.PASSING) == (deed == "killed")


def test_a_loop_is_ended_by_the_seconds_that_it_computes(tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "PROGRAM", apart.PROGRAM.replace("; serve(", "; import {2} as a; a.SECONDS = 0; serve("))
    begun = time.monotonic()
    with pytest.raises(CheckpointError, match="ends, or does not"), OddApart(written(tmp_path, "read loops")) as source:
        source.read("a")
    assert time.monotonic() - begun < apart.PATIENCE / 2
