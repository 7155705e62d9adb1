"""Releases of many models: throughput beside loops started by hand, deaths of processes, runs with nothing to do.

.venv/bin/python benchmarks/release.py [--small 680] [--only throughput,kills,dask,twice,nothing]

Checkpoints are R50x1 in the shapes of VTAB's, from a mirror that is a folder, to a folder hub (``kills``: to a Hub on
127.0.0.1). A loop started by hand is one process with one thread that converts, verifies and publishes its half of the
models. Exits with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from common import Goals, machine, print_table

from converters import variants

ROOT = Path(__file__).parents[1]
GLOB = "vtab/BiT-M-R50x1-run0-*"
COMMAND = (sys.executable, "-P", "-m", "converters")
LOOP = """
import sys
from converters import convert, publish
hub, output, *names = sys.argv[1:]
for name in names:
    publish(convert(name, output=output), repo_id="me/" + name.replace("/", "-"), hub=hub)
"""
KILLS = 12
ROUNDS = 3
WORKERS, DASK_KILLS = 4, 20


def make(mirror: Path) -> list[str]:
    """The checkpoints of GLOB; all of one random trunk, with heads of their own."""
    sys.path.insert(0, str(ROOT))
    from tests.checkpoints import make_checkpoint

    found = variants(GLOB)
    trunk = make_checkpoint((3, 4, 6, 3), 64, 10)
    for index, variant in enumerate(found):
        assert variant.url is not None
        place = mirror / variant.url.partition("/bit_models/")[2]
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            generator = np.random.default_rng(index)
            head = {
                name: generator.normal(0, 0.01, (*values.shape[:-1], variant.network.classes)).astype(np.float32)
                for name, values in trunk.items()
                if "head/conv2d" in name
            }
            np.savez(place, **(trunk | head))
    return [variant.name for variant in found]


def small(folder: Path, count: int) -> Path:
    """A plan of ``count`` small checkpoints."""
    sys.path.insert(0, str(ROOT))
    from tests.checkpoints import make_checkpoint

    lines = [f'[defaults]\npush = true\nhub = "{folder / "hub"}"\n']
    for index in range(count):
        place = folder / "small" / f"m{index}.npz"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            np.savez(place, **make_checkpoint((1,), 32, 5 + index, mids=(32,)))
        output = folder / "out" / place.stem
        lines.append(f'[[release]]\ncheckpoint = "{place}"\noutput = "{output}"\nrepo_id = "me/{place.stem}"\n')
    plan = folder / "plan.toml"
    plan.write_text("\n".join(lines), encoding="utf-8")
    return plan


class Measured:
    """Seconds that passed, seconds of processors, and the most bytes of the process itself, not of its children."""

    def __init__(self, work: Callable[[], Sequence[subprocess.Popen[str]]]) -> None:
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        processes = work()
        self.memory, self.said = 0, ["" for _ in processes]
        for process in processes:
            while process.poll() is None:
                self.memory = max(self.memory, _highest(process.pid))
                time.sleep(0.2)
        self.seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.statuses = [process.returncode for process in processes]


def _highest(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


class Bench:
    def __init__(self, folder: Path, goals: Goals) -> None:
        self.folder, self.goals, self.runs = folder, goals, 0
        self.mirror = folder / "mirror"

    def fresh(self) -> Path:
        """A folder for the next run; that of the run before is removed, of 5 GB and more."""
        shutil.rmtree(self.folder / f"run{self.runs}", ignore_errors=True)
        self.runs += 1
        place = self.folder / f"run{self.runs}"
        place.mkdir()
        return place

    def environment(self, place: Path, **more: str) -> dict[str, str]:
        paths = {"PYTHONPATH": str(ROOT), "BIT_CONVERT_MIRROR": f"file://{self.mirror}/"}
        return os.environ | paths | {"BIT_CONVERT_CACHE": str(place / "cache")} | more

    def begin(self, place: Path, *words: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *words, "--output", str(place / "models"), "--quiet"],
            env=self.environment(place, **more),
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def release(self, place: Path, *words: str, runs: int = 1) -> Measured:
        """The whole glob to a folder hub, by so many equal runs at once."""
        words = (GLOB, "--push", "--hub", str(place / "hub"), "--namespace", "me", *words)
        found = Measured(lambda: [self.begin(place, *words) for _ in range(runs)])
        assert found.statuses == [0] * runs, found.statuses
        return found

    def by_hand(self, names: list[str]) -> Measured:
        place = self.fresh()

        def loops() -> list[subprocess.Popen[str]]:
            return [
                subprocess.Popen(
                    [sys.executable, "-c", LOOP, str(place / "hub"), str(place / f"models{half}"), *names[half::2]],
                    env=self.environment(place, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1"),
                    text=True,
                )
                for half in range(2)
            ]

        found = Measured(loops)
        assert found.statuses == [0, 0]
        return found

    def throughput(self, names: list[str]) -> None:
        loops, two, one = self.by_hand(names), self.release(self.fresh(), "--jobs", "2"), self.release(self.fresh())
        rows = [("two loops by hand", loops), ("--jobs 2", two), ("--jobs 1", one)]
        print_table(
            ["way", "s", "processor s", "parent MB"],
            [(name, each.seconds, each.processor, each.memory / 1e6) for name, each in rows],
        )
        self.goals.at_least("throughput of --jobs 2 / two loops", loops.seconds / two.seconds, 0.92)
        self.goals.at_least("throughput of --jobs 2 / --jobs 1", one.seconds / two.seconds, 1.0)
        self.goals.at_most("processor of --jobs 2 / two loops", two.processor / loops.processor, 1.05)
        self.goals.at_most("parent of --jobs 2, MB", two.memory / 1e6, 150)

    def twice(self, names: list[str]) -> None:
        """Ratios of neighbours in time, since the machine's own speed changes."""
        ratios = []
        for _ in range(ROUNDS):
            alone = self.release(self.fresh(), "--jobs", "2")
            both = self.release(self.fresh(), "--jobs", "2", runs=2)
            ratios.append(both.processor / alone.processor)
        self.goals.at_most("processor of two equal runs at once / of one", statistics.median(ratios), 1.1)

    def kills(self, names: list[str]) -> None:
        """To a Hub over HTTP, while processes of the pool are killed."""
        from tests.hub_server import HubServer, User

        place, dice = self.fresh(), random.Random(7)
        with HubServer({"token": User("me")}) as hub:
            more = {
                "HF_ENDPOINT": hub.url,
                "HF_TOKEN": "token",
                "HF_HUB_DISABLE_XET": "1",
                "HF_HOME": str(place / "hf"),
            }
            run = self.begin(place, GLOB, "--push", "--namespace", "me", "--jobs", "2", **more)
            killed = 0
            while run.poll() is None:
                time.sleep(dice.uniform(2, 8))
                found = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()
                if killed < KILLS and found:
                    os.kill(int(dice.choice(found)), signal.SIGKILL)
                    killed += 1
            made = [len([*repository.history()]) for repository in hub.repositories.values()]
        left = list((place / "models").glob(".*"))
        print(f"{killed} kills: exit {run.returncode}, commits {sorted(made)}, left {left}")
        self.goals.at_most("kills: exit status", run.returncode, 0)
        self.goals.at_least("kills: repositories", len(made), len(names))
        self.goals.at_most("kills: leftovers", len(left), 0)

    def dask(self, count: int) -> None:
        """On four workers of a cluster, of which twenty are killed, while its scheduler is restarted once."""
        place, dice = self.fresh(), random.Random(5)
        plan, port = small(place, count), 18786
        ways = {"env": self.environment(place), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        address = f"tcp://127.0.0.1:{port}"
        dask = [sys.executable, "-m"]
        leading = [
            *dask,
            "distributed.cli.dask_scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--no-dashboard",
        ]
        working = [*dask, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        scheduler = subprocess.Popen(leading, **ways)
        workers = [subprocess.Popen([*working, "--local-directory", str(place)], **ways) for _ in range(WORKERS)]
        words = [*COMMAND, "--plan", str(plan), "--scheduler", address, "--quiet"]
        run, killed = subprocess.Popen(words, env=self.environment(place), stdout=subprocess.DEVNULL), 0
        restarted = False
        while run.poll() is None:
            time.sleep(dice.uniform(1, 4))
            if killed < DASK_KILLS:
                victim = workers.pop(dice.randrange(WORKERS))
                victim.kill()
                victim.wait()
                killed += 1
                workers.append(subprocess.Popen([*working, "--local-directory", str(place)], **ways))
            if killed == DASK_KILLS // 2 and not restarted:
                scheduler.kill()
                scheduler.wait()
                scheduler, restarted = subprocess.Popen(leading, **ways), True
        for process in (*workers, scheduler):
            process.kill()
        made = [*(place / "hub").glob("models--*/snapshots/*")]
        print(f"Dask: {killed} kills, exit {run.returncode}, {len(made)} commits")
        self.goals.at_most("Dask: exit status", run.returncode, 0)
        self.goals.at_least("Dask: commits", len(made), count)
        self.goals.at_most("Dask: commits", len(made), count)

    def nothing(self, count: int) -> None:
        place = self.fresh()
        plan = small(place, count)

        def go() -> list[subprocess.Popen[str]]:
            words = [*COMMAND, "--plan", str(plan), "--jobs", "2", "--quiet"]
            return [subprocess.Popen(words, env=self.environment(place), stdout=subprocess.DEVNULL, text=True)]

        first, again = Measured(go), Measured(go)
        assert first.statuses == again.statuses == [0]
        print_table(
            ["run", "s", "processor s", "parent MB"],
            [
                (f"{count} small models", first.seconds, first.processor, first.memory / 1e6),
                ("nothing to do", again.seconds, again.processor, again.memory / 1e6),
            ],
        )
        self.goals.at_most(f"nothing to do, {count} small models, s", again.seconds, 60)
        self.goals.at_most("parent, MB", max(first.memory, again.memory) / 1e6, 150)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=680)
    parser.add_argument("--only", default="throughput,kills,dask,twice,nothing")
    parser.add_argument("--folder", type=Path, help="where to work, on a disk with 2 GB for every five models")
    options = parser.parse_args()
    print(machine())
    goals = Goals()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        bench = Bench(Path(folder), goals)
        wanted = options.only.split(",")
        names = make(bench.mirror) if {"throughput", "kills", "twice"} & {*wanted} else []
        for name in ("throughput", "kills", "twice"):
            if name in wanted:
                getattr(bench, name)(names)
        if "dask" in wanted:
            bench.dask(40)
        if "nothing" in wanted:
            bench.nothing(options.small)
    return goals.status


if __name__ == "__main__":
    raise SystemExit(main())
