"""The weights of an ``.h5`` file in the file's own order, as h5py reads them in a process of its own.

HDF5's library may die of a damaged file, loop, or reserve what the file claims. So it does that in a process that may
use what the network's tensors justify, and whose end is an error. Whoever opened the file before has looked at its
links; but none of that code is used, since what it gives is to be judged by this.

    path → process → layers, names and shapes in order → ``StoredWeight`` …, whose values are read when they are asked

    asked: a line, a place in the list; answered: a line of JSON, and behind it the values in float64
"""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.protocols import OracleError

Array = npt.NDArray[np.float64]

PROGRAM = f"import sys; sys.path[:] = sys.argv[4:]; from {__name__} import serve; serve()"
"""Imports what this process would import, from the same places."""
SPARE = 256 << 20
"""Bytes beyond three times the values."""
SECONDS, RATE = 60, 20e6
"""Seconds that the process may compute for, and the bytes for which it has one more."""


@dataclass(frozen=True)
class StoredWeight:
    layer: str
    name: str
    shape: tuple[int, ...]
    read: Callable[[], Array]


@contextmanager
def stored_weights(path: str, size: int) -> Iterator[list[StoredWeight]]:
    """Lists a file whose values have ``size`` bytes in float64.

    Raises ImportError without h5py; OracleError where the file cannot be read, there or when values are asked for.
    """
    if find_spec("h5py") is None:
        raise ImportError("h5py", name="h5py")
    limits = (3 * size + SPARE, SECONDS + int(size / RATE))
    command = [sys.executable, "-c", PROGRAM, path, *map(str, limits), *sys.path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        try:

            def values(place: int, shape: tuple[int, ...]) -> Array:
                if math.prod(shape) * np.dtype(np.float64).itemsize > size:
                    raise OracleError(f"one of its weights claims to have the shape {shape}")
                _ask(process, place)
                found = np.empty(shape)
                if process.stdout.readinto(found.reshape(-1).view(np.uint8).data) != found.nbytes:
                    raise _ended(process)
                return found

            yield [
                StoredWeight(layer, name, tuple(shape), _bound(values, place, tuple(shape)))
                for place, (layer, name, shape) in enumerate(_ask(process)["weights"])
            ]
        finally:
            process.kill()


def _bound(values: Callable[[int, tuple[int, ...]], Array], place: int, shape: tuple[int, ...]) -> Callable[[], Array]:
    return lambda: values(place, shape)


def _ask(process: Any, place: int | None = None) -> dict[str, Any]:
    """The next answer, to the question or to the start. Raises OracleError with what it tells."""
    with suppress(OSError):  # said by the answer that does not come
        if place is not None:
            process.stdin.write(b"%d\n" % place)
            process.stdin.flush()
    try:
        answer: dict[str, Any] = json.loads(process.stdout.readline())
    except ValueError:
        raise _ended(process) from None
    if "error" in answer:
        raise OracleError(answer["error"])
    return answer


def _ended(process: Any) -> OracleError:
    return OracleError(f"HDF5's library ended the process that read the file (status {process.wait()})")


def serve() -> None:
    """Answers in the process until nobody asks."""
    path, memory, seconds = sys.argv[1:4]
    import h5py

    _limit(int(memory), int(seconds))

    def tell(content: Mapping[str, Any], values: bytes | memoryview = b"") -> None:
        sys.stdout.buffer.write(json.dumps(content).encode() + b"\n")
        sys.stdout.buffer.write(values)
        sys.stdout.buffer.flush()

    try:
        with h5py.File(path, "r", locking=False) as file:
            weights = list(_in_order(file))
            tell({"weights": [(layer, name, list(dataset.shape)) for layer, name, dataset in weights]})
            for line in sys.stdin:
                values = np.ascontiguousarray(weights[int(line)][2][()], np.float64)
                tell({}, values.reshape(-1).view(np.uint8).data)
    except Exception as error:  # of a foreign file, whatever it is
        tell({"error": f"{type(error).__name__}: {str(error)[:200]}"})


def _limit(memory: int, seconds: int) -> None:
    """Lets this process reserve ``memory`` bytes beyond what it has, on Linux alone, and compute for ``seconds``."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError, ValueError):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _in_order(file: Any) -> Iterator[tuple[str, str, Any]]:
    """(layer, weight, dataset), as ``load_weights`` deals them out."""
    root = file.get("model_weights", file)
    for layer in _listed(root, "layer_names"):
        for weight in _listed(root[layer], "weight_names"):
            yield layer, weight, root[layer][weight]


def _listed(group: Any, attribute: str) -> Iterator[str]:
    """One attribute, or several numbered ones where the list is too long for one."""
    numbered = (f"{attribute}{part}" for part in itertools.count())
    keys = [attribute] if attribute in group.attrs else itertools.takewhile(group.attrs.__contains__, numbered)
    for key in keys:
        for name in group.attrs[key]:
            yield name.decode() if isinstance(name, bytes) else str(name)
