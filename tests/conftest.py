"""What holds for all tests: libraries in an order that they survive, one thread each, no deadline for an example.

``--quick`` leaves out each test that is marked slow, imports one of ``OPTIONAL`` or starts another Python, and runs a
few cases of a test that has many: a rule and no list, so it holds for tests to come. The libraries in ``OPTIONAL`` need
not be installed.
"""

import gc
import os
import signal
import sys
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # or several processes fight for the cores; NumPy looks when it is imported
    assert "numpy" not in sys.modules, "a plugin has imported NumPy, with as many threads as there are cores"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

from tests.checkpoints import make_checkpoint
from tests.shared import FOLDER

OPTIONAL = {
    "accelerate",
    "distributed",
    "kagglehub",
    "keras",
    "model_signing",
    "peft",
    "pypdf",
    "sklearn",
    "tensorflow",
    "tf_keras",
    "timm",
    "torchvision",
    "transformers",
}
"""Of extras other than ``quick``; most take seconds to import."""
CASES = 2
"""Of one test, as many as ``--quick`` runs."""

gc.set_threshold(20_000, 50, 50)  # or garbage is looked for in all that PyTorch and TensorFlow hold, again and again

with suppress(ImportError):
    import triton  # noqa: F401 - TensorFlow 2.21, then Triton 3.8 (which torch._dynamo loads), dies

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("steady", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("steady")


@pytest.fixture(scope="session", autouse=True)
def _folder_of_the_run(tmp_path_factory):
    """Of all processes of xdist, each of which has its own folder within."""
    own = tmp_path_factory.getbasetemp()
    os.environ[FOLDER] = str(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    """Nothing is remembered of a user's files, or in a user's home."""
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tensors() -> dict[str, np.ndarray]:
    """A network for tests to which any will do. Do not change its values."""
    return make_checkpoint((1, 1), 32, 3, seed=5, mids=(32, 64))


@pytest.fixture(scope="session")
def checkpoint(tensors, tmp_path_factory) -> Path:
    """The same as an npz; tests that change it take a copy."""
    path = tmp_path_factory.mktemp("source") / "tiny.npz"
    np.savez(path, **tensors)
    return path


@pytest.fixture(autouse=True)
def _apart_from_other_tests(monkeypatch):
    """No lines of progress, since on a busy machine anything may take long enough to be told of; no gates of a release
    before, in files, since where a test has a clock of its own their time would never come."""
    monkeypatch.setattr("converters.cli.progress.FIRST", float("inf"))
    monkeypatch.setattr("converters.download.gates._shared", [])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="what needs no minute: see tests/conftest.py")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.quick:
        settings.load_profile("quick")
        sys.meta_path.insert(0, SkipOptional())
        sys.addaudithook(skip_another_python)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.quick:
        chosen = few_cases([item for item in items if not item.get_closest_marker("slow")])
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]
    elif "PYTEST_XDIST_WORKER" in os.environ:  # or a long file begins when the other processes have ended
        lasting = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (item.path.parent.name != "e2e", item.path not in lasting))


def few_cases(items: list[pytest.Item]) -> set[pytest.Item]:
    """Of each test the first case, the last, and others at even distances between them."""
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return {cases[at * (len(cases) - 1) // (CASES - 1)] for cases in tests.values() for at in range(CASES)}


def pytest_collection_finish() -> None:
    """What libraries hold stays until the end: whoever collects garbage, as each training does, need not look at it."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or libraries say at exit that it was leaked


class SkipOptional:
    """Finds each optional library, installed or not, and ends the test that goes on to import it, skipped."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.partition(".")[0] in OPTIONAL else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        raise pytest.skip.Exception(f"--quick: imports {spec.name}", allow_module_level=True)

    def exec_module(self, module: object) -> None:
        """What makes this a loader; never called."""


def skip_another_python(event: str, arguments: tuple[object, ...]) -> None:
    in_test = "PYTEST_CURRENT_TEST" in os.environ  # and not xdist, which starts its workers
    if event == "subprocess.Popen" and in_test and Path(str(arguments[0])).parent == Path(sys.executable).parent:
        raise pytest.skip.Exception("--quick: starts another Python")
