"""A run over several models as whoever started it sees it: lines, a live table, silence, and what lies there then."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from converters import conversion
from converters.cli.watching import EventLines, LiveTable, Watch, record_folder
from converters.release import one
from converters.release.events import Event
from converters.release.job import State
from converters.release.record import Record
from converters.release.schemas import SCHEMAS
from converters.release.schemas.document import Document
from converters.release.worker import AttemptProgress
from tests.command_line import run
from tests.converters.releases import jobs
from verify import Report

MANY = ("BiT-[Md][-i]*[1g]*", "--offline", "--no-verify")
"""BiT-digits, and others that cannot be had offline."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def record(folder: Path = Path("models")) -> dict:
    return json.loads((folder / "release.json").read_text())


def events(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# Lines


def said(*happened: Event, verbose: bool = False) -> list[str]:
    lines: list[str] = []
    listener = EventLines(verbose, lines.append)
    for event in happened:
        listener(event)
    return [line.partition(" ")[2] for line in lines]


def test_a_step_has_a_line_when_it_ends_and_one_now_and_then_while_it_takes_long():
    story = [
        Event("a", "started", time=0.0),
        Event("a", "writing", time=0.1),
        Event("a", "writing", 0.4, time=0.5),
        Event("a", "verifying", time=0.5),
        *(Event("a", "verifying", time=second) for second in (10.0, 20.0, 31.0, 45.0)),
        Event("b", "downloading", time=50.0),
        Event("a", "published", 60.25, time=60.25),
    ]
    assert said(*story) == ["a: verifying, 30.5 s", "a: verifying, 59.8 s", "a: published, 60.2 s"]
    assert said(*story, verbose=True)[0] == "a: writing, 0.4 s"


def test_two_layouts_of_one_model_are_told_apart():
    steps = [("writing", 0), ("verifying", 1)] * 20
    story = [Event("a", step, time=float(at), number=number) for at, (step, number) in enumerate(steps)]
    assert said(*story, Event("a", "published", 41.0, time=41.0, number=0)) == [
        "a: writing, 30.0 s",
        "a: verifying, 30.0 s",
        "a: writing, 41.0 s",
        "a: published, 41.0 s",
    ]
    table = LiveTable(2, lambda: 24, now=lambda: 41.0)
    for event in story:
        table(event)
    assert [line.split()[:2] for line in shown(table)[2:]] == [["a", "writing"], ["a", "verifying"]]


def test_lines_tell_the_time_and_why_something_is_done_again():
    lines: list[str] = []
    EventLines(False, lines.append)(Event("a", "retried", 2.0, error="the host went away.\nsecond", attempt=2))
    assert len(lines[0].split(" ")[0]) == len("12:03:04")
    assert lines[0].endswith(" a: retried (attempt 2), 2.0 s: the host went away.")
    assert said(Event("a", "not tried", 0.0)) == []


def test_steps_begin_and_end_as_events_whatever_tensor_they_are_at():
    sent: list[Event] = []
    steps = AttemptProgress(sent.append, "a", 2)
    for what in ("writing a.b", "writing c.d", "verifying NumPy float64, image 1 of 2", "publishing"):
        steps(what, 0, 1)
    assert [(event.step, event.seconds is None, event.attempt) for event in sent] == [
        ("writing", True, 2),
        ("writing", False, 2),
        ("verifying NumPy float64", True, 2),
        ("verifying NumPy float64", False, 2),
        ("publishing", True, 2),
    ]


class Slow(dict):
    """Gives other threads time to change it after each look."""

    def get(self, key, default=None):
        found = super().get(key, default)
        time.sleep(0.01)
        return found


def test_events_may_come_from_several_threads(monkeypatch):
    """Of a cluster, they come from the engine and from Dask's own thread."""
    monkeypatch.setattr("converters.cli.watching.say", lambda line, err: None)
    watch = Watch([None], shown=True, verbose=True)
    watch._listeners[0]._running = Slow()

    def work(_):
        for _ in range(5):
            watch(Event("a", "writing"))
            watch(Event("a", "writing", 0.1))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))  # raises what a thread raised
    watch.close()


# The live table


def shown(table: LiveTable, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=StringIO(), width=width, height=height, force_terminal=False)
    console.print(table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_the_table_shows_what_is_being_done_and_totals():
    table = LiveTable(40, lambda: 24, now=lambda: 125.0)
    for event in (
        Event("done", "started", time=0.0),
        Event("done", "published", 3.0, time=3.0),
        Event("bad[red]", "failed", 3.0, time=3.0),
        Event("BiT-M-R50x1", "downloading", bytes=512_000_000, attempt=2, time=60.0),
        Event("BiT-M-R50x1", "downloading", bytes=613_000_000, attempt=2, time=61.0),
    ):
        table(event)
    lines = shown(table)
    assert lines[0].startswith("2 of 40 done in 0:00: 1 published, 1 failed")
    assert lines[2].split() == ["BiT-M-R50x1", "downloading", "613.0", "MB", "1:05", "attempt", "2"]
    assert len(lines) == 3


@pytest.mark.parametrize("height", [24, 10, 3])
def test_the_table_fits_the_terminal(height):
    table = LiveTable(680, lambda: height)
    for number in range(100):
        table(Event(f"model-{number}-[bold]\x1b[2J{'long' * 50}", "verifying"))
    lines = shown(table, width=60, height=height)
    assert len(lines) <= max(height, 3)
    assert all(len(line) <= 60 for line in lines)
    assert "more" in lines[-1]
    assert not any("\x1b" in line for line in lines)


# Whole runs


def test_a_glob_leaves_lines_events_and_a_record(tmp_path):
    result = run(*MANY, "--output", "models", "--events", "log/events.jsonl")
    assert result.exit_code == 4
    content = record()
    assert content["totals"]["states"] == {"failed": len(content["models"]) - 1, "converted": 1}
    assert content["finished"] is True
    assert content["models"][-1]["model"] == "BiT-digits"
    assert content["models"][0]["exit_status"] == 4
    assert "and offline" in content["models"][0]["error"]
    assert content["models"][0]["next"].startswith("bit-convert BiT-M-R")
    lines = events(tmp_path / "log" / "events.jsonl")
    assert all(set(line) == set(SCHEMAS["events"]()["required"]) for line in lines)
    of_digits = [line["step"] for line in lines if line["model"] == "BiT-digits"]
    assert of_digits[0] == "started"
    assert of_digits[-1] == "converted"
    assert of_digits == ["started", "writing", "converted"]
    assert next(line["host"] for line in lines if line["step"] == "converted").endswith(f":{os.getpid()}")
    assert any(line.endswith(" s") and "BiT-digits: converted, " in line for line in result.stderr.splitlines())
    assert Path("models/release.html").is_file()


def fits(content: dict) -> Document:
    """The document as the schema has it; no key is left out of that."""
    known = SCHEMAS["result"]()
    assert content["schema"] == 1
    assert set(content) <= set(known["properties"])
    assert all(set(entry) <= set(known["$defs"]["Entry"]["properties"]) for entry in content["results"])
    return msgspec.convert(content, Document, strict=True)


def test_quiet_is_silent_but_for_errors_and_json_is_versioned():
    result = run(*MANY, "--quiet", "--json")
    assert [line for line in result.stderr.splitlines() if not line.startswith("bit-convert: ")] == []
    document = fits(json.loads(result.stdout))
    assert {entry["state"] for entry in document["results"]} == {State.CONVERTED, State.FAILED}
    assert fits(json.loads(run("BiT-dig*", "--dry-run", "--json").stdout))["results"][0]["state"] is State.PLANNED
    assert json.loads(run("--nonsense", "--json").stdout)["schema"] == 1


def test_one_model_has_events_and_no_record(tmp_path):
    result = run("BiT-digits", "--no-verify", "--events", "events", "--quiet")
    assert result.exit_code == 0
    lines = events(tmp_path / "events")
    assert [lines[0]["step"], lines[-1]["step"]] == ["started", "converted"]
    assert lines[-1]["seconds"] > 0
    assert os.listdir("models") == ["BiT-digits"]


def test_a_glob_of_one_has_a_record():
    assert run("BiT-dig*", "--no-verify", "--quiet").exit_code == 0
    assert record()["totals"]["states"] == {"converted": 1}


@pytest.mark.parametrize("words", [MANY, ("BiT-dig*", "--no-verify")], ids=["many", "one"])
def test_what_an_interrupted_run_did_not_try_is_told_everywhere(words, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(one, "convert", interrupted)
    result = run(*words, "--json", "--quiet")
    assert result.exit_code == 130
    content = json.loads(result.stdout)
    assert content["exit_status"] == 130
    assert len(result.stderr.splitlines()[-1:]) == 1
    assert "interrupted" in result.stderr
    assert {row["state"] for row in record()["models"]} == {"not tried"}
    assert {row["exit_status"] for row in record()["models"]} == {130}
    if len(record()["models"]) > 1:
        assert {(entry["state"], entry["exit_status"]) for entry in content["results"]} == {("not tried", 130)}
        assert len(content["results"]) == len(record()["models"])


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full")
def test_a_full_disk_under_the_events_costs_no_result(monkeypatch):
    def full(self: Record, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Record, "_put", full)
    result = run(*MANY, "--quiet", "--json", "--events", "/dev/full")
    states = {entry["state"] for entry in json.loads(result.stdout)["results"]}
    assert states == {"converted", "failed"}
    assert result.exit_code == 4
    assert sum("No space left" in line for line in result.stderr.splitlines()) == 2


def test_events_that_cannot_be_written_are_wrong_usage_before_anything_is_done(tmp_path):
    (tmp_path / "file").write_text("")
    result = run("BiT-digits", "--no-verify", "--events", "file/events")
    assert result.exit_code == 2
    assert "--events" in result.stderr
    assert not Path("models").exists()


def test_the_record_lies_around_the_folders_or_where_most_models_do(tmp_path):
    todo = [*jobs(tmp_path / "a", 1), *jobs(tmp_path / "b", 3)]
    assert record_folder(todo) == tmp_path
    assert record_folder(jobs(tmp_path / "a", 2)) == tmp_path / "a"
    assert record_folder([*todo, *jobs(Path("/elsewhere"), 1)]) == tmp_path / "b"


PLAN = """
[defaults]
verify = false
output = "models/{layout}"
[[release]]
variant = "BiT-digits"
[[release]]
variant = "BiT-digits"
layout = "npz"
"""


def test_parts_of_a_plan_leave_one_record_of_all(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    for part in ("1/2", "2/2"):
        assert run("--plan", "plan.toml", "--shard", part, "--quiet").exit_code == 0
    assert sorted(row["folder"] for row in record()["models"]) == ["npz/BiT-digits", "transformers/BiT-digits"]
    assert sorted(path.name for path in Path("models").glob("release-*")) == [
        "release-1-of-2.json",
        "release-2-of-2.json",
    ]


@pytest.mark.slow
def test_what_is_said_on_a_terminal_stands_above_the_table_and_the_table_goes(tmp_path):
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "converters", *MANY], stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # its end
        while piece := os.read(master, 1 << 16):
            shown += piece
    os.close(master)
    assert process.wait() == 4
    text = shown.decode()
    assert "of 13 done in" in text
    for said in ("BiT-digits: converted", "bit-convert: https://"):
        lines = [line for line in text.split("\n") if said in line]
        assert lines
        assert all("\x1b[2K" in line.partition(said)[0] or line.startswith(said) for line in lines)
    assert text.rstrip().splitlines()[-1].endswith("bit-convert: 1 converted, 12 failed")


@pytest.mark.slow
def test_a_failed_proof_shows_its_figures_and_its_page(monkeypatch):
    audit = conversion.audit_folder

    def failing(*words: object, **more: object) -> Report:
        return replace(audit(*words, **more), verdict="failed", reason="the logits are others")

    monkeypatch.setattr(conversion, "audit_folder", failing)
    assert run("BiT-dig*", "--quiet").exit_code == 1
    (row,) = record()["models"]
    assert (row["state"], row["exit_status"], row["verdict"]) == ("failed", 1, "failed")
    assert 0 < row["ratio"] < 2.5
    assert row["report"] == "BiT-digits.failed/parity.html"
    assert row["next"] == "bit-convert BiT-digits"
    assert 'href="./BiT-digits.failed/parity.html"' in Path("models/release.html").read_text()
