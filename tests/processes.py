"""Processes in an environment of their own, without the seconds that importing PyTorch takes each time.

    Popen ── arguments, environment, pipes ──→ server ── fork ──→ keeper ── fork ──→ the program
                   exit status  ←──────────────────────────────────┘

The server has imported ``LIBRARIES``: nothing that reads its environment when it is imported, as huggingface_hub does.
A program is a process like any other: it leads a session of its own, and may be killed at any time. A module has its
processes forked where its name ``subprocess`` stands for this module. What a test says of imports, or of the
interpreter's own options, needs a process that was started: ``subprocess``.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, PIPE, TimeoutExpired

__all__ = ["DEVNULL", "FORKED", "PIPE", "ROOT", "Popen", "TimeoutExpired", "python"]
ROOT = Path(__file__).parents[1]
LIBRARIES = (
    "torch",
    "torchvision",
    "sklearn.metrics",
    "numpy.testing",
    "h5py",
    "httpx",
    "jinja2",
    "PIL.Image",
    "rich",
    "converters.release.worker",
    "converters.release.one",
)
"""Those of them that are installed are imported; transformers and timm import the second and third."""
SERVER = "BIT_CONVERT_TEST_SERVER"
"""The variable of the environment that names the server's socket: a program's own programs are its forks, too."""
FORKED = """
from converters.release import pool
from tests import processes
pool.subprocess = processes
"""
"""What a program begins with whose pool is to fork its processes, too."""
STATUS = struct.Struct("i")
ABOVE = 500
"""File numbers that no process of the tests has by itself."""


def python(
    program: str, *arguments: object, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What ``python -c PROGRAM ARGUMENTS`` gives in this environment, by default this process's own, at ``ROOT``."""
    words = [str(argument) for argument in arguments]
    command = [sys.executable, "-c", program, *words]
    with Popen(
        command, env=environment, cwd=ROOT, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, errors="replace"
    ) as process:
        out, error = process.communicate()
    return subprocess.CompletedProcess(words, process.returncode, out, error)


class Popen(subprocess.Popen):
    """Runs ``[sys.executable, …, "-m", MODULE, …]`` or ``[sys.executable, "-c", PROGRAM, …]``.

    It overrides what starts a child and what awaits one, since the program is a child of a child of the server's.
    """

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others):
        pipes = others[3:9]  # both ends of the standard input, of the output and of the errors; -1: inherited
        theirs = enumerate((pipes[0], pipes[3], pipes[5]))
        numbers = {wanted: wanted if given == -1 else given for wanted, given in theirs}
        numbers |= {number: number for number in pass_fds}
        server = _server()
        request = json.dumps(
            {
                "arguments": [os.fspath(each) for each in args[1:]],
                "wanted": list(numbers),
                "environment": {**(os.environ if env is None else env), SERVER: server},
                "folder": os.fspath(cwd or os.getcwd()),
            }
        ).encode()
        self._keeper = socket.socket(socket.AF_UNIX)
        self._keeper.connect(server)
        socket.send_fds(self._keeper, [STATUS.pack(len(request))], list(numbers.values()))
        self._keeper.sendall(request)
        self.pid = self._told()
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _internal_poll(self, *_, **__):
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):
            with suppress(OSError):
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            self._waitpid_lock.release()
        return self.returncode

    def _try_wait(self, wait_flags):
        if wait_flags & os.WNOHANG and not select.select([self._keeper], [], [], 0)[0]:
            return 0, 0
        status = self._told()
        self._keeper.close()
        return self.pid, status

    def _told(self):
        return STATUS.unpack(self._keeper.recv(STATUS.size, socket.MSG_WAITALL))[0]


@cache
def _server() -> str:
    """The address of the server, which ends with the process that started it."""
    if SERVER not in os.environ:
        folder = tempfile.mkdtemp(prefix="bit-", dir="/tmp")  # the name of a socket may not be long
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # others would be lost in a fork
        own = threads | {"TMPDIR": folder}  # where PyTorch makes one more
        command = [sys.executable, "-m", __name__, f"{folder}/server"]
        _server.process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | own, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        assert _server.process.stdout.readline() == b"ready\n"
        os.environ[SERVER] = command[-1]
    return os.environ[SERVER]


def _serve(path: str) -> None:
    """Serves until the standard input ends."""
    for name in LIBRARIES:
        if find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or a program that looks for garbage takes a copy of every page
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody awaits a keeper
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _keep(connection)
        connection.close()
    os._exit(0)


def _keep(connection: socket.socket) -> None:
    """Starts a program, and says how it ended."""
    length, numbers, _, _ = socket.recv_fds(connection, STATUS.size, 64)
    request = json.loads(connection.recv(*STATUS.unpack(length), socket.MSG_WAITALL))
    program = os.fork()
    if not program:
        os.setsid()
        _become(numbers=numbers, **request)
    for number in numbers:
        os.close(number)
    with suppress(BrokenPipeError):
        connection.sendall(STATUS.pack(program))
        connection.sendall(STATUS.pack(os.waitpid(program, 0)[1]))
    os._exit(0)


def _become(
    arguments: list[str], numbers: list[int], wanted: list[int], environment: dict[str, str], folder: str
) -> None:
    """Takes this process for the program, with its files under the wanted numbers."""
    away = [fcntl.fcntl(number, fcntl.F_DUPFD, ABOVE) for number in numbers]
    os.closerange(3, ABOVE)
    for number, place in zip(away, wanted, strict=True):
        os.dup2(number, place)
        os.close(number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None
    atexit._clear()  # what libraries wanted done at the end of the server
    at = next(at for at, word in enumerate(arguments) if word in ("-m", "-c"))
    how, what, *words = arguments[at:]
    sys.argv = [how, *words]
    try:
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    else:
        status = 0
    _end(status)


def _end(status: int) -> None:
    """Ends this process as Python does, but for a second of taking PyTorch apart."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1])
