"""Readers in a process of their own give what they give here, also where that process ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from converters import convert
from tests.checkpoints import make_checkpoint
from tests.verify.folders import write_folder
from tests.verify.support import TorchModel, audited
from verify.images import default_images
from verify.reader_apart import BitRefApart, ReaderProcess
from verify.readers import BitRefReader

COMMAND = [sys.executable, "-c", "from converters.cli import convert; convert()"]
IMAGES = np.concatenate(default_images(48))


@pytest.fixture(scope="module")
def process():
    with ReaderProcess() as process:
        yield process


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folder"), make_checkpoint((1, 1), 32, 3, mids=(32, 64)))


@pytest.mark.parametrize("epsilon", [None, 1e-8])
@pytest.mark.slow
def test_outputs_are_those_of_a_reader_here(process, folder, epsilon):
    here, apart = BitRefReader(folder, epsilon), BitRefApart(process, folder, epsilon, has_head=True)
    assert (apart.name, apart.unit, apart.epsilon) == (here.name, here.unit, here.epsilon)
    for images in (IMAGES[:1], IMAGES):
        ours, theirs = here.run(images), apart.run(images)
        assert list(theirs) == list(ours)
        for name, values in ours.items():
            np.testing.assert_array_equal(theirs[name], values, strict=True)
        np.testing.assert_array_equal(apart.logits(images), here.logits(images), strict=True)


@pytest.mark.slow
def test_an_error_is_that_of_a_reader_here(process, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    here, apart = BitRefReader(tmp_path, has_head=True), BitRefApart(process, tmp_path, None, has_head=True)
    assert error_of(apart) == error_of(here)
    assert error_of(here)[0] == "OSError"


def error_of(reader):
    try:
        reader.run(IMAGES)
    except Exception as error:
        return type(error).__name__, str(error)


@pytest.mark.slow
def test_a_reader_runs_here_where_its_process_has_ended(folder):
    with ReaderProcess() as process:
        os.kill(process._process.pid, signal.SIGKILL)
        outputs = BitRefApart(process, folder, None, has_head=True).run(IMAGES)
    np.testing.assert_array_equal(outputs["logits"], BitRefReader(folder).run(IMAGES)["logits"])


class Waiting(TorchModel):
    """A model that waits, as one in another process, until the oracle has come to a layer."""

    apart = True

    def __init__(self, tensors, layer, **attributes):
        super().__init__(tensors, **attributes)
        self._layer, self._reached = layer, threading.Event()

    def run(self, image):
        assert self._reached.wait(20), f"the oracle waits before {self._layer}"
        return super().run(image)

    def heed(self, what, done, total):
        if self._layer in what:
            self._reached.set()


@pytest.mark.parametrize(("held", "layer"), [(1 << 24, "features"), (1, "root")])
@pytest.mark.parametrize("fault", [{}, {"norm_epsilon": 1e-3}, {"outputs": ("logits", "more")}], ids=str)
def test_the_oracle_walks_while_readers_run(tensors, monkeypatch, held, layer, fault):
    """Until the layers that wait take too much memory; the report is the same."""
    monkeypatch.setattr("verify.forward.HELD_BYTES", held)
    model = Waiting(tensors, layer, **fault)
    steps = []

    def note(*step):
        steps.append(step)
        model.heed(*step)

    assert audited(tensors, model, progress=note) == audited(tensors, TorchModel(tensors, **fault))
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)


@pytest.mark.slow
def test_a_command_gives_the_report_of_the_function(checkpoint, tmp_path):
    """The command's process has no PyTorch, and the one that it starts leaves nothing behind."""
    loaded = "; import sys; print('torch' in sys.modules, file=sys.stderr)"
    program = f"import atexit; atexit.register(lambda: exec({loaded[2:]!r})); {COMMAND[2]}"
    command = [*COMMAND[:2], program, "--checkpoint", checkpoint, "--output", tmp_path / "command", "--quiet"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stderr == "False\n"
    convert(checkpoint=checkpoint, output=tmp_path / "function")
    reports = [json.loads((tmp_path / name / "parity.json").read_bytes()) for name in ("command", "function")]
    assert reports[0] == reports[1]


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked for in /proc")
@pytest.mark.slow
def test_ctrl_c_ends_both_processes(tmp_path):
    """Only the command is interrupted, as by a service that stops it: a terminal interrupts both."""
    large = tmp_path / "large.npz"
    np.savez(large, **make_checkpoint((3, 4), 64, 5000, mids=(256, 512)))
    command = [*COMMAND, "--checkpoint", large, "--output", tmp_path / "model", "--verbose"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (started := children.read_text().split()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert process.stderr.read().splitlines()[-1].startswith("bit-convert: interrupted")
    end = time.monotonic() + 20  # by itself, where it was being started
    while any(Path(f"/proc/{child}").exists() for child in started):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["large.npz"]
