"""Real processes on real files: what they make, what their deaths leave, and that two runs share the work.

Most of them begin with PyTorch loaded: ``tests/processes.py``.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from converters.conversion import Request
from converters.options import ConvertOptions, PublishOptions
from converters.release import pool as pools
from converters.release.engine import Engine
from converters.release.events import Event
from converters.release.job import Job, JobResult, State
from converters.release.one import release_one
from converters.release.pool import Pool
from tests import processes
from tests.checkpoints import make_checkpoint

pytestmark = pytest.mark.slow
PROGRAM = """
import sys
from pathlib import Path
from tests.converters.release.test_pool import jobs_of, run
for result in run(jobs_of(Path(sys.argv[1])), 2):
    print(result.name, result.state, flush=True)
"""


def jobs_of(root: Path) -> list[Job]:
    checkpoints = sorted(root.glob("*.npz"))
    return [
        Job(
            Request(None, path, root / "models" / path.stem, ConvertOptions()),
            PublishOptions(repo_id=f"me/{path.stem}", hub=root / "hub"),
        )
        for path in checkpoints
    ]


def run(jobs: list[Job], count: int, *, disturb=lambda pool: None) -> list[JobResult]:
    events: list[Event] = []
    pool = Pool(count, events.append)
    over = threading.Event()
    thread = threading.Thread(target=lambda: [disturb(pool) for _ in iter(lambda: over.wait(0.4), True)], daemon=True)
    thread.start()
    try:
        return list(Engine(jobs, pool, events.append).results())
    finally:
        over.set()
        pool.stop()


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(pools, "subprocess", processes)
    (tmp_path / "tmp").mkdir()
    for index in range(5):
        np.savez(tmp_path / f"c{index}.npz", **make_checkpoint((1,), 32, 5 + index, mids=(32,)))
    return tmp_path


def commits(root: Path) -> Counter[str]:
    return Counter(path.parents[1].name for path in (root / "hub").glob("models--*/snapshots/*"))


def leftovers(root: Path) -> list[Path]:
    return [*(root / "models").glob(".*"), *(root / "tmp").iterdir()]


def test_processes_make_what_one_process_makes(root, tmp_path_factory):
    results = run(jobs_of(root), 2)
    assert [result.state for result in results] == [State.PUBLISHED] * 5
    alone = tmp_path_factory.mktemp("alone")
    for job, path in zip(jobs_of(root), sorted(root.glob("*.npz")), strict=True):
        request = Request(None, path, alone / path.stem, ConvertOptions())
        assert isinstance(release_one(Job(request), lambda *_: None), JobResult)
        for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
            assert (alone / path.stem / name).read_bytes() == (job.request.output / name).read_bytes()
    again = run(jobs_of(root), 2)
    assert [result.state for result in again] == [State.UNCHANGED] * 5
    assert commits(root) == {f"models--me--c{index}": 1 for index in range(5)}
    assert leftovers(root) == []


def test_any_process_may_be_killed_at_any_time(root):
    dice, killed = random.Random(4), []

    def kill(pool: Pool) -> None:
        processes = [process._process.pid for process in pool._processes]
        if processes and len(killed) < 6 and dice.random() < 0.5:
            killed.append(dice.choice(processes))
            os.kill(killed[-1], signal.SIGKILL)

    results = run(jobs_of(root), 2, disturb=kill)
    assert len(killed) > 1
    assert sorted(result.state for result in results) == [State.PUBLISHED] * 5 or {
        result.state for result in results
    } <= {State.PUBLISHED, State.UNCHANGED}
    assert commits(root) == {f"models--me--c{index}": 1 for index in range(5)}
    assert leftovers(root) == []


def test_however_many_are_killed_the_others_go_on(root, monkeypatch):
    """More than may fail by themselves, before the first is done with anything."""
    monkeypatch.setattr(pools, "BROKEN", 3)
    killed = []

    def kill(pool: Pool) -> None:
        for process in list(pool._processes):
            if len(killed) < 8:
                killed.append(process._process.pid)
                os.kill(killed[-1], signal.SIGKILL)

    results = run(jobs_of(root), 2, disturb=kill)
    assert len(killed) == 8
    assert {result.state for result in results} <= {State.PUBLISHED, State.UNCHANGED}
    assert commits(root) == {f"models--me--c{index}": 1 for index in range(5)}


def test_processes_end_with_whoever_started_them(root):
    command = [sys.executable, "-c", PROGRAM, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        children: list[str] = []
        while len(children) < 2:
            found = subprocess.run(["pgrep", "-P", str(parent.pid)], capture_output=True, text=True)
            children = found.stdout.split()
            time.sleep(0.05)
        assert parent.stdout is not None
        assert parent.stdout.readline()
        parent.kill()
    limit = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    results = run(jobs_of(root), 1)
    assert {result.state for result in results} <= {State.PUBLISHED, State.UNCHANGED}
    assert commits(root) == {f"models--me--c{index}": 1 for index in range(5)}
    assert leftovers(root) == []


def test_two_runs_at_once_share_the_work(root):
    command = [sys.executable, "-c", processes.FORKED + PROGRAM, str(root)]
    both = [processes.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = []
    for each in both:
        assert each.stdout is not None
        said.append(each.stdout.read().split("\n")[:-1])
        each.communicate()
    assert [len(lines) for lines in said] == [5, 5]
    published = Counter(line.rpartition(" ")[2] for lines in said for line in lines)
    assert published == {State.PUBLISHED: 5, State.UNCHANGED: 5}
    assert leftovers(root) == []


def test_a_process_that_cannot_work_ends_the_run_with_a_remedy(root, monkeypatch):
    monkeypatch.setattr(pools, "subprocess", subprocess)
    monkeypatch.setattr(pools.sys, "executable", "/bin/false")
    results = run(jobs_of(root), 2)
    assert len(results) == 5
    assert {result.exit_status for result in results} == {2}
    assert "--jobs 1" in str(results[-1].error)


def test_threads_are_shared_out(root, monkeypatch):
    monkeypatch.setattr(pools, "subprocess", subprocess)
    monkeypatch.setattr(pools, "cores", lambda: 8)
    pool = Pool(3, lambda _: None)
    try:
        process = pool._started()
        environment = Path(f"/proc/{process._process.pid}/environ").read_bytes().split(b"\0")
        assert b"OMP_NUM_THREADS=2" in environment
    finally:
        pool.stop()


def pool_of(count: int, clock: list[float], monkeypatch) -> Pool:
    monkeypatch.setattr(pools, "cores", lambda: 8)
    monkeypatch.setattr(pools.time, "monotonic", lambda: clock[0])
    return Pool(count, lambda _: None)


def test_runs_of_one_user_share_the_cores(root, monkeypatch):
    clock = [0.0]
    first, second = pool_of(8, clock, monkeypatch), pool_of(8, clock, monkeypatch)
    try:
        assert first.idle() == 1  # another may be about to begin
        clock[0] += pools.BEGINNING
        assert first.idle() == 8
        assert second.idle() == 1
        assert first.idle() == 1
        clock[0] += pools.BEGINNING
        assert (first.idle(), second.idle()) == (4, 4)
        second.stop()
        assert first.idle() == 1  # no process is started for work that both runs had
        clock[0] += pools.ENDING
        assert first.idle() == 8
    finally:
        first.stop()
    assert [*(root / "cache" / "runs").iterdir()] == []


def test_runs_that_leave_cores_to_others_have_all_that_they_ask_for(root, monkeypatch):
    clock = [0.0]
    few = [pool_of(2, clock, monkeypatch) for _ in range(3)]
    try:
        for pool in [*few, *few]:  # the last to come is seen by all
            pool.idle()
        clock[0] += pools.BEGINNING
        assert [pool.idle() for pool in few] == [2, 2, 2]
    finally:
        for pool in few:
            pool.stop()


def test_a_run_that_was_killed_has_no_share(root, monkeypatch):
    (root / "cache" / "runs" / "run-0badcafe").mkdir(parents=True)
    clock = [0.0]
    pool = pool_of(8, clock, monkeypatch)
    try:
        pool.idle()
        clock[0] += pools.BEGINNING
        assert pool.idle() == 8
    finally:
        pool.stop()


def test_a_cache_that_cannot_be_written_shares_nothing(root, monkeypatch):
    (root / "cache").write_text("a file", encoding="utf-8")
    clock = [0.0]
    pool = pool_of(8, clock, monkeypatch)
    assert pool.idle() == 1
    clock[0] += pools.BEGINNING
    assert pool.idle() == 8
    pool.stop()
