"""Runs in one process share the threads: NumPy's, PyTorch's, and those of what is loaded later."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController

from converters.conversion import Request
from converters.options import ConvertOptions
from converters.release import workers
from converters.release.job import Job, JobResult, State
from converters.release.sharing import THREADS, Runs
from converters.release.workers import Here
from tests.checkpoints import make_checkpoint
from verify.oracles.numpy import threads


@pytest.fixture(autouse=True)
def _own_threads(tmp_path, monkeypatch):
    """Of a user who asks for none, on four cores; afterwards all is as it was."""
    before = torch.get_num_threads()
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    for name in THREADS:
        monkeypatch.setenv(name, "")
    for module in (threads, workers):
        monkeypatch.setattr(module, "cores", lambda: 4)
    with ThreadpoolController().limit(limits=4, user_api="blas"):
        torch.set_num_threads(4)
        yield
    torch.set_num_threads(before)


def threads_of(here: Here, place: Path) -> tuple[str, set[int], int]:
    """Those of the environment, of BLAS and of PyTorch while this worker makes an attempt."""
    found = []

    @contextmanager
    def shown(number, attempt, job):
        np.ones((2, 2)) @ np.ones((2, 2))
        blas = {each["num_threads"] for each in ThreadpoolController().info() if each["user_api"] == "blas"}
        found.append((os.environ["OMP_NUM_THREADS"], blas, torch.get_num_threads()))
        yield lambda *_: None

    here._shown = shown
    np.savez(place / "c.npz", **make_checkpoint((1,), 32, 5, mids=(32,)))
    here.begin(0, 1, Job(Request(None, place / "c.npz", place / "model", ConvertOptions(verify=False))))
    [(_, result)] = here.ended(None)
    assert isinstance(result, JobResult)
    assert result.state in (State.CONVERTED, State.UNCHANGED)
    return found[0]


def test_a_run_by_itself_has_every_thread_and_one_beside_another_half_of_them(tmp_path):
    here, other = Here(lambda *_: None, bars=False, tell=None), Runs()
    assert threads_of(here, tmp_path) == ("", {4}, 4)
    assert other.count() == 2
    assert threads_of(here, tmp_path) == ("2", {2}, 2)
    other.close()
    assert threads_of(here, tmp_path) == ("4", {4}, 4)
    here.stop()
    assert [*(tmp_path / "cache" / "runs").iterdir()] == []


def test_no_more_threads_than_were_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    here, other = Here(lambda *_: None, bars=False, tell=None), Runs()
    other.count()
    assert threads_of(here, tmp_path)[0] == "1"
    here.stop()
    other.close()
