"""A real scheduler and real workers of Dask, of which some are killed; they begin with PyTorch loaded."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from converters.errors import HubError
from converters.release import cluster as clusters
from converters.release.cluster import Cluster
from converters.release.engine import Engine
from converters.release.events import Event
from converters.release.job import State
from tests import processes
from tests.converters.release.test_pool import commits, jobs_of, leftovers, root

__all__ = ["root"]
pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def dask(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment["DASK_TEMPORARY_DIRECTORY"] = environment["BIT_CONVERT_CACHE"] + "-dask"
    process = processes.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def scheduler(address: str):
    host, _, port = address.removeprefix("tcp://").partition(":")
    return dask("dask_scheduler", "--host", host, "--port", port, "--no-dashboard")


@pytest.fixture
def address(root: Path) -> Iterator[str]:
    found = f"tcp://127.0.0.1:{free_port()}"
    with scheduler(found):
        yield found


def worker(address: str, root: Path):
    folder = str(root / "dask")
    return dask("dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", folder)


def test_workers_that_die_lose_nothing(address, root):
    events: list[Event] = []
    dice = random.Random(2)
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(address, root)) for _ in range(2)]
        cluster = Cluster(address, events.append)
        engine = Engine(jobs_of(root), cluster, events.append)
        results = []
        for result in engine.results():
            results.append(result)
            if len(results) in (1, 3):
                victim = dice.choice([each for each in workers if each.poll() is None])
                os.kill(victim.pid, signal.SIGKILL)
                workers.append(stack.enter_context(worker(address, root)))
        cluster.stop()
    assert {result.state for result in results} <= {State.PUBLISHED, State.UNCHANGED}
    assert len(results) == 5
    assert commits(root) == {f"models--me--c{index}": 1 for index in range(5)}
    assert leftovers(root) == []
    steps = {event.step.partition(" ")[0] for event in events}
    assert {"started", "verifying", "publishing", "published"} <= steps


def test_a_scheduler_that_is_restarted_costs_an_attempt(root):
    address = f"tcp://127.0.0.1:{free_port()}"
    results = []
    with ExitStack() as stack:
        first = stack.enter_context(scheduler(address))
        stack.enter_context(worker(address, root))
        cluster = Cluster(address, lambda _: None)
        for result in Engine(jobs_of(root), cluster, lambda _: None).results():
            results.append(result)
            if len(results) == 2:
                first.kill()
                first.wait()
                stack.enter_context(scheduler(address))
                stack.enter_context(worker(address, root))
        cluster.stop()
    assert {result.state for result in results} <= {State.PUBLISHED, State.UNCHANGED}
    assert commits(root) == {f"models--me--c{index}": 1 for index in range(5)}


def test_a_cluster_without_workers_is_an_error_in_the_end(address, root, monkeypatch):
    monkeypatch.setattr(clusters, "WITHOUT_WORKERS", 2.0)
    start = time.monotonic()
    cluster = Cluster(address, lambda _: None)
    results = list(Engine(jobs_of(root), cluster, lambda _: None).results())
    cluster.stop()
    assert time.monotonic() - start > 2
    assert [result.state for result in results] == [State.NOT_TRIED] * 5
    assert {result.exit_status for result in results} == {4}
    assert "no worker for" in str(results[0].error)


def test_no_scheduler_is_said_at_once(monkeypatch):
    monkeypatch.setattr(clusters, "CONNECT", 1.0)
    with pytest.raises(HubError, match=r"Check --scheduler"):
        Cluster(f"tcp://127.0.0.1:{free_port()}", lambda _: None)
