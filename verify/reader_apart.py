"""bit_ref in a process of its own: PyTorch is imported there, for seconds, while this process writes and compares.

Python's lock lets one thread at a time do what is not NumPy's, and an import hardly lets go of it. What comes back is
what the same reader gives here; where the process ends unasked, it is run here.

    folder → ``BitRefApart`` ─ a line of JSON, an image ─→ ``serve()``: ``BitRefReader``
                             ←─ a line of JSON, outputs ─
"""

from __future__ import annotations

import gc
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from verify.own_process import begin, read_array, read_line, send
from verify.readers import BitRefReader

if TYPE_CHECKING:
    from verify.protocols import Array, Image

PROGRAM = "from verify.reader_apart import serve; serve(int(sys.argv[1]))"


class Ended(Exception):
    """The process has ended unasked."""


class ReaderProcess:
    """A process that begins to import PyTorch when this is made. Close it, by ``with``, with whatever it is doing."""

    def __init__(self) -> None:
        self._process, self._stream = begin(PROGRAM)
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        self._process.kill()
        self._process.wait()

    def ask(self, what: str, reader: tuple[str, float | None, bool], images: Image) -> dict[str, Array]:
        """The outputs of one reader: what ``run`` or ``logits`` gives.

        Raises what the reader raises, under the same name, and Ended where no answer comes.
        """
        try:
            _send(self._stream, {"what": what, "reader": reader}, {"images": images})
            told, outputs = _receive(self._stream)
        except (OSError, ValueError) as error:
            if self._is_closed:
                raise InterruptedError("nobody wants to know any more") from None
            raise Ended from error
        if "error" in told:
            raise _error_of(told)
        return outputs


class BitRefApart(BitRefReader):
    """bit_ref on a folder, by ``process``, in float32."""

    apart = True

    def __init__(self, process: ReaderProcess, folder: str | Path, epsilon: float | None, has_head: bool) -> None:
        super().__init__(folder, epsilon, has_head=has_head)
        self._process, self._described = process, (str(folder), epsilon, has_head)

    def prepare(self) -> None:
        """Imports nothing: the process does."""

    def run(self, images: Image) -> Mapping[str, Array]:
        with suppress(Ended):
            return self._process.ask("run", self._described, images)
        return super().run(images)

    def logits(self, images: Image) -> Array:
        with suppress(Ended):
            return self._process.ask("logits", self._described, images)["logits"]
        return super().logits(images)


def serve(number: int) -> None:
    """Answers in the process until nobody asks. One model is kept at a time."""
    gc.disable()  # PyTorch makes a million objects that stay
    import bit_ref.model  # noqa: F401

    gc.enable()
    loaded: tuple[Any, BitRefReader] | None = None
    with socket.socket(fileno=number) as asked, asked.makefile("rwb") as stream, suppress(OSError, ValueError):
        while True:
            told, arrays = _receive(stream)
            if loaded is None or loaded[0] != told["reader"]:
                folder, epsilon, has_head = told["reader"]
                loaded = told["reader"], BitRefReader(folder, epsilon, has_head=has_head)
            try:
                found = getattr(loaded[1], told["what"])(arrays["images"])
            except Exception as error:
                _send(stream, {"error": type(error).__name__, "message": str(error)}, {})
            else:
                _send(stream, {}, found if told["what"] == "run" else {"logits": found})


def _error_of(told: Mapping[str, str]) -> Exception:
    error: Exception = type(told["error"], (Exception,), {})(told["message"])
    return error


def _send(stream: Any, content: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    shapes = {name: values.shape for name, values in arrays.items()}
    send(stream, {**content, "shapes": shapes}, *arrays.values())


def _receive(stream: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """The next message: what was sent, and the arrays. Raises OSError or ValueError where it ends before."""
    content = read_line(stream)
    return content, {name: read_array(stream, shape) for name, shape in content.pop("shapes").items()}
