"""Programs in a process and an environment of their own, without the seconds that importing PyTorch takes each time.

A server that has imported ``LIBRARIES`` forks once a program: nothing of this project or of huggingface_hub, which read
their environment when they are imported. What a test says of imports, of the interpreter's own options, or of signals
needs a process that was started: ``subprocess``.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARIES = ("torch", "torchvision", "sklearn.metrics", "numpy.testing", "h5py", "httpx", "jinja2", "PIL.Image", "rich")
"""Those of them that are installed are imported; transformers and timm import the second and third."""


def python(
    program: str, *arguments: object, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What ``python -c PROGRAM ARGUMENTS`` gives in this environment, by default this process's own, at ``ROOT``."""
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory(prefix="program-") as folder:
        server = _server()
        request = {"program": program, "words": words, "environment": dict(environment or os.environ), "folder": folder}
        print(json.dumps(request), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        out, error = ((Path(folder) / name).read_text(errors="replace") for name in ("1", "2"))
    return subprocess.CompletedProcess(words, status, out, error)


@cache
def _server() -> subprocess.Popen[str]:
    """Ends with this process, which holds the other end of its stdin."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", __name__], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


def _serve() -> None:
    for name in LIBRARIES:
        if find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run(**json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(program: str, words: list[str], environment: dict[str, str], folder: str) -> None:
    """Takes this process for the program, whose exceptions end it as they end any."""
    for number, place in enumerate((os.devnull, f"{folder}/1", f"{folder}/2")):
        os.dup2(os.open(place, os.O_RDWR | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *words]
    exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    _serve()
