"""How long a release of everything takes, on 1, 8 and 64 workers, and what limits it: a simulation, not a measurement.

    python benchmarks/release_hours.py [--variant '*']

Each worker fetches, converts and verifies, and publishes one model after the other, the largest first, as the engine
does. Fetching and sending share the link of the machines; requests are given out by the Hub's windows of five minutes,
commits, of which the Hub publishes no limit, by an assumed one. What a model takes is ``converters.release.estimate``.
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from converters.catalogue.variants import find
from converters.release.estimate import REQUESTS, WINDOW, WINDOW_REQUESTS, seconds_of, weights_of

WORKERS = (1, 8, 64)
CORES = 2
"""Cores of a worker."""
PARALLEL = 0.36
"""The share of a second core that a verification has use of: R152x4's takes 50 s instead of 68."""


@dataclass(frozen=True)
class Rates:
    """Bytes a second and numbers an hour."""

    connection: float = 50e6
    """Of one worker, to Google's storage and to the Hub: 400 Mbit/s."""
    link: float = 250e6
    """Of all of them, in each direction: 2 Gbit/s."""
    commits: float = math.inf
    """Commits an hour, of one account."""


@dataclass(frozen=True)
class Load:
    """What one model takes."""

    bytes: int
    """To fetch, and to send."""
    seconds: float
    """Of one core."""


@dataclass(frozen=True)
class Outcome:
    """What a release takes."""

    hours: float
    limit: str
    """What would take longest if all else were free."""


def loads(glob: str = "*") -> list[Load]:
    """Those of the models that can be released, the largest first."""
    variants = [variant for variant in find(glob) if not variant.defect]
    weights = [weights_of(variant.network) for variant in variants]
    found = [Load(each, seconds_of(each, verify=True)) for each in weights]
    return sorted(found, key=lambda load: -load.bytes)


def simulated(models: Sequence[Load], workers: int, rates: Rates = Rates()) -> Outcome:
    """The hours of a release, each model given to the worker that is free first."""
    rate = min(rates.connection, rates.link / workers)
    cores = 1 + PARALLEL * (CORES - 1)
    hub = Hub(rates.commits)
    waiting = [2 * model.bytes / rate + model.seconds / cores for model in models]
    ready = waiting[:workers]  # the times at which workers have something to publish
    heapq.heapify(ready)
    end = 0.0
    for seconds in [*waiting[workers:], *[math.inf] * len(ready)]:
        end = hub.admitted(heapq.heappop(ready))
        if seconds < math.inf:
            heapq.heappush(ready, end + seconds)
    return Outcome(end / 3600, _limit(models, workers, rates, rate, cores))


class Hub:
    """Admits publications in the order in which they are asked for: requests a window, commits an hour."""

    def __init__(self, commits: float) -> None:
        self._between = 3600 / commits
        self._next = 0.0
        self._used: dict[int, int] = {}

    def admitted(self, time: float) -> float:
        """The time at which a publication that is ready at ``time`` has made its requests."""
        time = max(time, self._next)
        window = int(time // WINDOW)
        while self._used.get(window, 0) + REQUESTS > WINDOW_REQUESTS:
            window += 1
            time = window * WINDOW
        self._used[window] = self._used.get(window, 0) + REQUESTS
        self._next = time + self._between
        return time


def _limit(models: Sequence[Load], workers: int, rates: Rates, rate: float, cores: float) -> str:
    transfer = sum(2 * model.bytes for model in models) / rate / workers
    alone = {
        "processors": sum(model.seconds for model in models) / cores / workers,
        "the link of all" if rate < rates.connection else "each worker's connection": transfer,
        "the Hub's requests": len(models) * REQUESTS / WINDOW_REQUESTS * WINDOW,
        "the Hub's commits": len(models) / rates.commits * 3600,
    }
    return max(alone, key=lambda name: alone[name])


def table(models: Sequence[Load]) -> str:
    """The rows of the table in docs/release.md."""
    ways = {
        "as above": Rates(),
        "a link of 20 Gbit/s": Rates(link=2.5e9),
        "100 commits an hour": Rates(commits=100),
    }
    rows = []
    for name, rates in ways.items():
        cells = [simulated(models, workers, rates) for workers in WORKERS]
        rows.append(f"| {name} | " + " | ".join(f"{cell.hours:.1f}, {cell.limit}" for cell in cells) + " |")
    return "\n".join(rows)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--variant", default="*")
    print(table(loads(options.parse_args().variant)))


if __name__ == "__main__":
    main()
