"""Processes that open and prepare images: whatever a file makes a decoder do, it takes one of them and nothing else.

    images → a process each thread drives → bytes of pixels → Prepared, in the order of the images

    asked: a line of JSON, the path; answered: a line of JSON, and behind it the values

A process is this Python with nothing of the user's program, as in ``sources.apart``. One that dies, or takes too long,
is replaced, and its image is unreadable.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from converters.auditing.evaluation.images import UnreadableImageError, hashed
from converters.auditing.evaluation.recipes import Recipe, preparer
from verify.own_process import begin, read_array, read_line, send

if TYPE_CHECKING:
    from converters.auditing.evaluation.datasets import LabelledImage  # with what a process has no use for

Pixels = npt.NDArray[np.float32]

PATIENCE = 120
"""Seconds for one image, the import of its library included."""
MOST = 16
"""Processes, at most."""
PROGRAM = "from converters.auditing.evaluation.workers import serve; serve()"
_ENDED = "its decoder ended, or took too long"


@dataclass(frozen=True)
class Prepared:
    """An image as the two recipes make it; or why it cannot be read."""

    image: LabelledImage
    sha256: str = ""
    source: Pixels | None = None
    """(3, height, width)."""
    target: Pixels | None = None
    """None where it is what the source's recipe makes, and where the folder's fails."""
    unreadable: str = ""
    refused: str = ""
    """Why the folder's own recipe makes nothing of it."""


class ImageWorkers:
    """Open with ``with``. ``target`` is None where the folder's recipe is the source's, or there is none; ``images`` is
    how many there are to prepare."""

    def __init__(self, source: Recipe, target: Recipe | None, images: int = MOST) -> None:
        from verify.oracles.numpy.threads import cores  # with the oracle, which a process has no use for

        self._recipes = [source.to_json(), target.to_json() if target else ""]
        self.count = max(1, min(images, cores(), MOST))
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        self._all: list[_Process] = []
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for process in list(self._all):
            process.close()

    def prepared(self, images: Iterable[LabelledImage], ahead: int) -> Iterator[Prepared]:
        """The images in their order; at most ``ahead`` are prepared before they are asked for."""
        pool = ThreadPoolExecutor(self.count)
        waiting: deque[Future[Prepared]] = deque()
        try:
            for image in images:
                waiting.append(pool.submit(self._one, image))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            self.__exit__()
            pool.shutdown(wait=False, cancel_futures=True)

    def _one(self, image: LabelledImage) -> Prepared:
        try:
            process = self._idle.get_nowait()
        except Empty:
            process = _Process(self._recipes)
            self._all.append(process)
            if self._closed:
                process.close()
        try:
            prepared = process.ask(image)
        except (OSError, ValueError):
            process.close()
            self._all.remove(process)
            return Prepared(image, unreadable=_ENDED)
        self._idle.put(process)
        return prepared


class _Process:
    """One process and the line to it."""

    def __init__(self, recipes: list[str]) -> None:
        self._process, self._stream = begin(
            PROGRAM,
            *recipes,
            patience=PATIENCE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for this one, which ends them
        )

    def ask(self, image: LabelledImage) -> Prepared:
        """Raises OSError or ValueError where no whole answer comes."""
        send(self._stream, str(image.path))
        answer = read_line(self._stream)
        if "unreadable" in answer:
            return Prepared(image, unreadable=answer["unreadable"])
        source = read_array(self._stream, answer["source"])
        target = None if answer["target"] is None else read_array(self._stream, answer["target"])
        return Prepared(image, answer["sha256"], source, target, refused=answer["refused"])

    def close(self) -> None:
        """Ends the process; whoever waits for its answer gets an error."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError, ValueError):
            self._stream.close()


def serve() -> None:
    """Answers in the process until nobody asks."""
    number, source, target = int(sys.argv[1]), *sys.argv[2:4]
    maker = Maker(Recipe.from_json(source), Recipe.from_json(target) if target else None)
    with socket.socket(fileno=number) as asked, asked.makefile("rwb") as stream:
        for line in stream:
            answer, arrays = maker.answer(Path(json.loads(line)))
            send(stream, answer, *arrays)


class Maker:
    """Makes of an image file the pixels of both recipes."""

    def __init__(self, source: Recipe, target: Recipe | None) -> None:
        self._source = preparer(source)
        self._recipe = target
        self._target: Any = None

    def answer(self, path: Path) -> tuple[dict[str, Any], list[Pixels]]:
        """The line, and the arrays behind it."""
        try:
            image, digest = hashed(path)
            rgb = image.convert("RGB")
            source = self._source(rgb)
        except UnreadableImageError as error:
            return {"unreadable": str(error)}, []
        except Exception as error:
            return {"unreadable": f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"}, []
        target, refused = self._own(rgb, source)
        arrays = [source] if target is None else [source, target]
        shape = None if target is None else list(target.shape)
        return {"sha256": digest, "source": list(source.shape), "target": shape, "refused": refused}, arrays

    def _own(self, image: Any, source: Pixels) -> tuple[Pixels | None, str]:
        """The pixels of the folder's recipe where they are others, or why there are none."""
        from verify.pixels import difference

        if self._recipe is None:
            return None, ""
        try:
            if self._target is None:
                self._target = preparer(self._recipe)
            found = np.asarray(self._target(image), np.float32)
            if found.ndim != 3 or found.shape[0] != 3 or not np.isfinite(found).all():
                raise ValueError(f"it makes an array of shape {found.shape}")
        except Exception as error:
            return None, f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        return (found, "") if difference(found, source) else (None, "")
