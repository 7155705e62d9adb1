"""What a release is said to take, held against what was measured of it."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.catalogue.variants import find, find_one
from converters.conversion import Request
from converters.download.cache import Slot, Version
from converters.errors import UsageError
from converters.files import sha256
from converters.mapping.architecture import Architecture
from converters.options import ConvertOptions, PublishOptions
from converters.release import estimate as estimates
from converters.release.estimate import Estimate, estimate, memory_of, seconds_of, weights_of
from converters.release.job import Job
from converters.release.shard import Shard
from tests.checkpoints import npz_bytes

MEASURED = {
    ("R50x1", 1000): (789, 89),
    ("R50x1", 21843): (1241, 138),  # in bfloat16; in float32 1119
    ("R101x1", 1000): (951, None),
    ("R50x3", 1000): (2514, 228),
    ("R152x2", 21843): (2957, None),
    ("R152x4", 1000): (8050, None),
}
"""Network and classes → megabytes at the peak of a whole process: verified, and with --no-verify."""


@pytest.mark.parametrize(("network", "classes"), MEASURED)
def test_memory_is_enough_and_not_much_more(network, classes):
    verified, converted = MEASURED[network, classes]
    weights = weights_of(Architecture.released(network, classes))
    assert verified <= memory_of(weights, verify=True) / 1e6 <= 1.3 * verified
    if converted:
        assert converted <= memory_of(weights, verify=False) / 1e6


def test_memory_of_a_stream_does_not_grow_with_the_network():
    small, large = (weights_of(Architecture.released(name, 1000)) for name in ("R50x1", "R152x4"))
    assert memory_of(small, verify=False) == memory_of(large, verify=False) < memory_of(small, verify=True)


def jobs_of(glob: str, publish: PublishOptions | None = None, **options: object) -> list[Job]:
    how = ConvertOptions(**options)
    return [Job(Request(variant, None, Path("models") / how.layout, how), publish) for variant in find(glob)]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def held(url: str, content: bytes, tmp_path: Path) -> None:
    """Puts a download into the cache, as one that is whole."""
    slot = Slot.of(url)
    slot.folder.mkdir(parents=True)
    slot.start(Version())
    slot.partial.write_bytes(content)
    slot.finish(Version(), sha256(slot.partial), url)


def test_weights_are_the_npz_without_what_zip_and_npy_add():
    for name, classes in (("R50x1", 1000), ("R101x3", None), ("R152x2", 21843)):
        architecture = Architecture.released(name, classes)
        assert 0 <= npz_bytes(architecture) - weights_of(architecture) < 200_000


def test_bytes_are_the_catalogues():
    variants = find("BiT-M-*-ILSVRC2012")
    found = estimate(jobs_of("BiT-M-*-ILSVRC2012", PublishOptions(namespace="me")))
    assert found.models == len(variants) == 6
    assert found.fetch == sum(variant.bytes for variant in variants)
    assert found.send == sum(weights_of(variant.network) for variant in variants)
    assert sum(found.disk.values()) == found.fetch + found.send
    assert found.memory == memory_of(weights_of(Architecture.released("R152x4", 1000)), verify=True)
    assert (found.cached, found.unknown) == (0, 0)


def test_one_checkpoint_in_two_layouts_is_fetched_once():
    one, both = jobs_of("BiT-M-R50x1"), jobs_of("BiT-M-R50x1") + jobs_of("BiT-M-R50x1", layout="timm", dtype="float16")
    assert estimate(both).fetch == estimate(one).fetch
    weights = weights_of(find_one("BiT-M-R50x1").network)
    assert sum(estimate(both).disk.values()) == sum(estimate(one).disk.values()) + weights // 2


def test_what_is_here_already_counts_for_nothing(tmp_path):
    (job,) = jobs_of("BiT-M-R50x1")
    held(job.request.variant.url, b"weights", tmp_path)
    place = job.request.place("BiT-M-R50x1")
    place.mkdir(parents=True)
    with (place / "model.safetensors").open("wb") as file:
        file.truncate(weights_of(job.request.variant.network) + 5)
    found = estimate([job])
    assert (found.fetch, found.cached, dict(found.disk)) == (0, 7, {})


def test_a_checkpoint_of_a_path_is_here_and_one_of_an_address_unknown(tmp_path):
    (tmp_path / "mine.npz").write_bytes(b"12345")
    here = Job(Request(None, "mine.npz", tmp_path / "a", ConvertOptions()))
    there = Job(Request(None, "https://example.org/x.npz", tmp_path / "b", ConvertOptions()))
    found = estimate([here, there])
    assert (found.models, found.unknown, found.fetch, found.cached) == (2, 1, 0, 5)
    assert found.lines()["models"] == "2; of 1 nothing is known before a download"
    assert (found.memory, found.seconds) == (memory_of(5, verify=True), seconds_of(5, verify=True))


def test_a_folder_that_is_no_checkpoint_is_not_counted_to_its_end(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"12")
    looked_at = []

    def endless(folder, pattern):
        while len(looked_at) < 10**6:
            looked_at.append(folder)
            yield folder / "file"

    monkeypatch.setattr(Path, "rglob", endless)
    assert estimates.bytes_of(tmp_path) == 2 * len(looked_at) <= 20_000


def test_a_folder_hub_takes_disk_and_no_requests(tmp_path):
    plain, copied = jobs_of("BiT-S-R50x1"), jobs_of("BiT-S-R50x1", PublishOptions(namespace="me", hub=tmp_path / "hub"))
    weights = weights_of(find_one("BiT-S-R50x1").network)
    assert sum(estimate(copied).disk.values()) - sum(estimate(plain).disk.values()) == weights
    assert estimate(copied).largest - estimate(plain).largest == weights
    assert (estimate(copied).requests, estimate(copied).send) == (0, 0)


def test_a_defective_file_stops_no_estimate():
    assert estimate(jobs_of("h5/BiT-S-*")).models == 5


def test_time_is_the_larger_networks():
    small, large = (weights_of(Architecture.released(name, 1000)) for name in ("R50x1", "R152x4"))
    assert 4 < seconds_of(small, verify=True) < 8
    assert 60 < seconds_of(large, verify=True) < 100
    assert seconds_of(large, verify=False) < seconds_of(large, verify=True) / 7


def test_what_is_said_of_a_whole_catalogue(monkeypatch):
    monkeypatch.setattr(estimates, "cores", lambda: 2)
    found = estimate(jobs_of("*", PublishOptions(namespace="me")))
    lines = found.lines()
    assert lines["models"] == "681"
    assert lines["Hub requests"] == "6,129, in 31 minutes at 1,000 in 5 minutes"
    assert lines["memory"] == "9.7 GB for the largest model"
    assert found.to_json()["hub_hours"] == pytest.approx(6129 / 1000 * 5 / 60, abs=1e-3)
    assert "send" not in estimate(jobs_of("BiT-S-R50x1")).lines()


def test_too_little_disk_is_said(tmp_path, monkeypatch):
    found = estimate(jobs_of("BiT-M-R50x1"))
    assert list(replace(found, disk={tmp_path: 1}).shortages()) == []
    (warning,) = replace(found, disk={tmp_path: 10**18}).shortages()
    assert warning.startswith(f"{tmp_path}: too little disk: 1000000000.0 GB are needed, ")
    assert list(replace(found, disk={tmp_path: 10**18}, largest=1).shortages(discarding=2)) == []


def test_nothing_takes_nothing():
    assert estimate([]) == Estimate(0, 0, 0, 0, 0, {}, 0, 0, 0, 0)


# ------------------------------------------------------------------------------------------------------------- shards


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1 / 2", "1/2\n", "١/٢"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match=r"is no part\. Write I/N"):
        Shard.of(text)


@given(st.lists(st.integers(0, 100)), st.integers(1, 9))
def test_parts_are_the_list_and_differ_by_at_most_the_largest(sizes, count):
    jobs = list(enumerate(sizes))
    parts = [Shard(index, count).part(jobs, lambda job: job[1]) for index in range(1, count + 1)]
    assert Counter(job for part in parts for job in part) == Counter(jobs)
    assert all(part == sorted(part) for part in parts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    sums = [sum(size for _, size in part) for part in parts]
    assert max(sums) - min(sums) <= max(sizes, default=0)


@pytest.mark.parametrize("count", [3, 5, 15])
def test_the_largest_networks_of_the_catalogue_go_to_all_parts(count):
    """Its lines repeat five networks and three runs."""
    variants = find("vtab/*")
    parts = [Shard(index, count).part(variants, lambda v: weights_of(v.network)) for index in range(1, count + 1)]
    largest = [sum(variant.architecture == "R152x4" for variant in part) for part in parts]
    assert max(largest) - min(largest) <= 1


# ------------------------------------------------------------------------------------------------------- a simulation

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def simulation():
    """benchmarks/release_hours.py."""
    spec = importlib.util.spec_from_file_location("release_hours", ROOT / "benchmarks" / "release_hours.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_table_of_hours_is_what_the_simulation_gives(simulation):
    page = (ROOT / "docs" / "release.md").read_text(encoding="utf-8")
    models = simulation.loads()
    assert f"the catalogue's {len(models)} models" in page
    assert simulation.table(models) in page


def test_a_simulation_is_never_faster_than_what_limits_it(simulation):
    models = simulation.loads("BiT-*")
    for workers in (1, 3, 64):
        for rates in (simulation.Rates(), simulation.Rates(commits=10), simulation.Rates(link=1e7)):
            hours = simulation.simulated(models, workers, rates).hours
            assert (
                hours >= 2 * sum(model.bytes for model in models) / min(rates.connection * workers, rates.link) / 3600
            )
            assert hours >= (len(models) - 1) / rates.commits
            assert hours >= models[0].seconds / 3600 / 2


def test_hours_of_one_worker_are_the_sum_of_its_models(simulation):
    models = [simulation.Load(10**9, 36.0), simulation.Load(10**9, 0.0)]
    rates = simulation.Rates(connection=1e8)
    assert simulation.simulated(models, 1, rates).hours == pytest.approx((40 + 36 / (1 + simulation.PARALLEL)) / 3600)
    assert simulation.simulated(models, 2, rates).hours == pytest.approx((20 + 36 / (1 + simulation.PARALLEL)) / 3600)


def test_more_requests_than_a_window_has_wait_for_the_next(simulation):
    hub = simulation.Hub(float("inf"))
    times = [hub.admitted(0.0) for _ in range(230)]
    assert times == [0.0] * 111 + [300.0] * 111 + [600.0] * 8
