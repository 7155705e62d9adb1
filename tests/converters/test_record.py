"""What a release leaves to watch and to read: lines of events, release.json, commands to type next, and schemas."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from converters.cli.commands import convert
from converters.cli.runs import RunOptions
from converters.conversion import Request
from converters.errors import BitConvertError, DefectError, HubError, UsageError
from converters.options import ConvertOptions, PublishOptions
from converters.release import record as records
from converters.release.again import again, audit, is_ours
from converters.release.events import Event
from converters.release.job import Job, JobResult, State
from converters.release.log import EventLog
from converters.release.record import Record
from converters.release.rows import Content, Row
from converters.release.schemas import SCHEMAS, file_of
from converters.release.shard import Shard
from tests.converters.releases import REFUSED, called, failed, jobs, published

ME = PublishOptions(namespace="me")


def silent(line: str) -> None:
    pytest.fail(line)


def strict(text: bytes) -> dict:
    return json.loads(text, parse_constant=lambda token: pytest.fail(token))


def record_of(folder: Path) -> dict:
    return strict((folder / "release.json").read_bytes())


def states(folder: Path) -> dict[str, str]:
    return {row["model"]: row["state"] for row in record_of(folder)["models"]}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(records, "PAUSE", 0.0)
    monkeypatch.setattr(records, "SHARE", 0.0)


# Events


def test_an_event_is_a_line_when_it_happens(tmp_path):
    log = EventLog(tmp_path / "new" / "events.jsonl", silent)
    log(Event("BiT-digits", "verifying", time=1790000000.1234))
    log(Event("BiT-digits", "published", 3.5, 1000, attempt=2, host="node1"))
    first, second = map(strict, (tmp_path / "new" / "events.jsonl").read_bytes().splitlines())
    assert first == {
        "schema": 1,
        "time": 1790000000.123,
        "model": "BiT-digits",
        "step": "verifying",
        "seconds": None,
        "bytes": None,
        "error": "",
        "attempt": 1,
        "host": "",
        "number": 0,
    }
    assert (second["seconds"], second["bytes"], second["attempt"], second["host"]) == (3.5, 1000, 2, "node1")
    log.close()


def test_lines_hold_no_secret_and_are_strict_json_whatever_happened(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_AbCdEfGhIjKlMnOpQrSt")
    log = EventLog(tmp_path / "events", silent)
    log(Event("a\ud800\n\x1b[2J", "failed", float("nan"), error="hf_AbCdEfGhIjKlMnOpQrSt at https://u:secret1@h/x"))
    (line,) = (tmp_path / "events").read_bytes().splitlines()
    content = strict(line)
    assert b"AbCdEf" not in line
    assert b"secret1" not in line
    assert b"\x1b" not in line
    assert content["seconds"] is None
    log.close()


def test_two_runs_share_a_file_of_events(tmp_path):
    logs = [EventLog(tmp_path / "events", silent) for _ in range(2)]

    def many(log: EventLog) -> None:
        for number in range(200):
            log(Event(f"model-{number}", "verifying", error="x" * 500))

    threads = [threading.Thread(target=many, args=[log]) for log in logs]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len([strict(line) for line in (tmp_path / "events").read_bytes().splitlines()]) == 400


def test_a_full_disk_is_warned_of_once_and_lines_come_again_when_there_is_room(tmp_path, monkeypatch):
    said: list[str] = []
    log, write, full = EventLog(tmp_path / "events", said.append), os.write, True

    def short(handle: int, data: bytes) -> int:
        if full and len(data) < 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data[: len(data) - 20] if full else data)

    monkeypatch.setattr(os, "write", short)
    for name in ("a", "b"):
        log(Event(name, "verifying"))
    full = False
    log(Event("c", "verifying"))
    assert len(said) == 1
    assert "No space left" in said[0]
    assert "The run goes on" in said[0]
    assert strict((tmp_path / "events").read_bytes().splitlines()[-1])["model"] == "c"


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full")
def test_a_device_that_is_full(tmp_path):
    said: list[str] = []
    log = EventLog(Path("/dev/full"), said.append)
    log(Event("a", "verifying"))
    log(Event("b", "verifying"))
    assert len(said) == 1


def test_a_file_of_events_that_cannot_be_opened_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="--events"):
        EventLog(tmp_path, silent)


# release.json


def test_two_layouts_of_one_model_are_two_rows_that_run_by_themselves(tmp_path):
    (job,) = jobs(tmp_path, 1)
    other = replace(job, request=replace(job.request, output=tmp_path / "npz"))
    record = Record(tmp_path, [job, other], silent)
    record(Event(job.name, "verifying", number=1))
    assert [(row["folder"], row["state"]) for row in record_of(tmp_path)["models"]] == [
        ("npz/BiT-digits", "running"),
        ("BiT-digits", "waiting"),
    ]
    record.close()


def test_a_row_a_model_failures_first_and_totals(tmp_path):
    todo = jobs(tmp_path, 4, ME)
    record = Record(tmp_path, todo, silent, command="bit-convert 'BiT-*' --push --namespace me")
    assert set(states(tmp_path).values()) == {"waiting"}
    assert record_of(tmp_path)["finished"] is False
    record(Event(todo[2].name, "verifying", attempt=2, host="node7:81", number=2))
    assert states(tmp_path)[todo[2].name] == "running"
    record.add(0, published(todo[0]))
    record.add(1, published(todo[1], changed=False))
    record.add(2, failed(todo[2]))
    record.close(130)
    content = record_of(tmp_path)
    assert content["finished"] is True
    assert content["totals"] == {
        "models": 4,
        "states": {"failed": 1, "not tried": 1, "published": 1, "unchanged": 1},
        "seconds": 65.0,
        "bytes": 4000,
    }
    fail, untried, done, _ = content["models"]
    assert (fail["model"], fail["exit_status"], fail["error"], fail["seconds"]) == (todo[2].name, 4, REFUSED, 2.5)
    assert (fail["attempt"], fail["host"], fail["step"]) == (2, "node7:81", "")
    assert (untried["model"], untried["exit_status"]) == (todo[3].name, 130)
    assert (done["state"], done["bytes"], done["folder"], done["exit_status"]) == ("published", 2000, "BiT-digits", 0)
    assert done["link"] == "https://huggingface.co/me/BiT-digits"
    assert done["next"] == "bit-verify hf://me/BiT-digits@main --against BiT-digits"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["release.html", "release.json"]


@pytest.mark.parametrize(
    ("states", "headline"),
    [
        ({"published": 38, "failed": 2}, "38 of 40 published, 2 failed"),
        ({"published": 30, "unchanged": 8, "failed": 2}, "30 of 40 published, 8 unchanged, 2 failed"),
        ({"published": 2, "running": 1, "waiting": 5}, "2 of 8 published, 1 running, 5 waiting"),
        ({"published": 40}, "all 40 published"),
        ({"failed": 1}, "1 of 1 failed"),
        ({}, "no models"),
    ],
)  # fmt: skip
def test_headline(states, headline):
    rows = [
        Row(model=f"{state}{number}", state=state, folder=f"{state}{number}")
        for state, count in states.items()
        for number in range(count)
    ]
    assert Content.of(rows, "1", "").totals.headline == headline


def test_models_of_an_earlier_run_stay(tmp_path):
    first, second = jobs(tmp_path, 2), jobs(tmp_path, 4)[1:]
    record = Record(tmp_path, first, silent)
    for number, job in enumerate(first):
        record.add(number, published(job))
    record.close(0)
    record = Record(tmp_path, second, silent)
    assert list(states(tmp_path).values()) == ["waiting"] * 3 + ["published"]
    record.add(1, failed(second[1]))
    record.close(130)
    assert states(tmp_path) == {
        second[1].name: "failed",
        second[2].name: "not tried",
        first[0].name: "published",
        first[1].name: "published",
    }


def test_what_was_discarded_keeps_its_figures_and_has_no_folder_to_see(tmp_path):
    (job,) = jobs(tmp_path, 1, ME)
    for result in (replace(published(job), discarded=True), replace(published(job, changed=False), discarded=True)):
        record = Record(tmp_path, [job], silent)
        made = result.state is State.PUBLISHED
        record.add(0, result if made else replace(result, conversion=None, bytes=None))
        record.close(0)
        (row,) = record_of(tmp_path)["models"]
        assert (row["state"], row["bytes"], row["discarded"]) == (result.state, 2000, True)
        assert 'href="./' not in (tmp_path / "release.html").read_text()


def test_what_was_not_tried_is_so_whoever_says_it(tmp_path):
    todo = jobs(tmp_path, 2)
    record = Record(tmp_path, todo, silent)
    full = HubError("the disk is full")
    record.add(0, JobResult(todo[0].name, State.NOT_TRIED, error=full))
    record.close(2)
    assert [(row["state"], row["exit_status"]) for row in record_of(tmp_path)["models"]] == [
        ("not tried", 4),
        ("not tried", 2),
    ]


def test_shards_make_one_record_and_their_parts_mend_it(tmp_path):
    todo = jobs(tmp_path, 5)
    shards = [Record(tmp_path, todo[at::2], silent, shard=Shard(at + 1, 2)) for at in range(2)]
    for at, record in enumerate(shards):
        for number, job in enumerate(todo[at::2]):
            record.add(number, published(job))
        record.close(0)
    assert states(tmp_path) == {job.name: "published" for job in todo}
    assert sorted(path.name for path in tmp_path.glob("release-*")) == ["release-1-of-2.json", "release-2-of-2.json"]
    assert len(strict((tmp_path / "release-2-of-2.json").read_bytes())["models"]) == 2
    (tmp_path / "release.json").unlink()
    Record(tmp_path, [], silent).close(0)
    assert states(tmp_path) == {job.name: "published" for job in todo}


RACER = """
import sys
from pathlib import Path
from converters.release import record
from tests.converters.releases import jobs, published
record.PAUSE = record.SHARE = 0.0
folder, at = Path(sys.argv[1]), int(sys.argv[2])
todo = jobs(folder, 24)[at::3]
mine = record.Record(folder, todo, print)
for number, job in enumerate(todo):
    mine.add(number, published(job))
mine.close(0)
"""


@pytest.mark.slow
def test_processes_that_write_at_the_same_time_lose_no_row(tmp_path):
    root = Path(__file__).parents[2]
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), str(at)], cwd=root, stdout=subprocess.PIPE)
        for at in range(3)
    ]
    assert [(racer.communicate()[0], racer.returncode) for racer in racers] == [(b"", 0)] * 3
    assert states(tmp_path) == {job.name: "published" for job in jobs(tmp_path, 24)}


def test_writes_are_seldom_and_the_last_is_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "PAUSE", 3600.0)
    written = []
    replaced = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (written.append(to.name), replaced(self, to))[1])
    todo = jobs(tmp_path, 20)
    record = Record(tmp_path, todo, silent)
    for number, job in enumerate(todo):
        record(Event(job.name, "started", number=number))
        record.add(number, published(job))
    assert written == ["release.json", "release.html"]
    record.close(0)
    assert written == ["release.json", "release.html"] * 2
    assert set(states(tmp_path).values()) == {"published"}


def test_what_ended_is_written_though_nothing_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "PAUSE", 0.05)
    (job,) = jobs(tmp_path, 1)
    record = Record(tmp_path, [job], silent)
    record.add(0, published(job))
    record._timer.join(10)
    assert states(tmp_path) == {job.name: "published"}


def test_a_full_disk_is_warned_of_once_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    said: list[str] = []
    (job,) = jobs(tmp_path, 1)
    record = Record(tmp_path, [job], said.append)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    record.add(0, published(job))
    record.close(0)
    assert len(said) == 1
    assert "No space left" in said[0]
    assert states(tmp_path) == {job.name: "waiting"}
    assert not list(tmp_path.glob(".*partial*"))


def test_a_folder_that_cannot_be_made_is_warned_of_once(tmp_path):
    said: list[str] = []
    (tmp_path / "file").write_text("")
    todo = jobs(tmp_path, 2)
    record = Record(tmp_path / "file", todo, said.append)
    record.add(0, failed(todo[0]))
    record.close(0)
    assert len(said) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"schema": 2}',
        b'{"models": {}}' + b" " * 20,
        b"[" * 100000,
        b"\xff",
        b'{"schema": 1, "version": "1", "command": "", "updated": 0, "finished": true, "totals": {}, "models": [{}]}',
    ],
    ids=range(7),
)
def test_a_file_of_another_making_is_set_aside(content, tmp_path):
    (tmp_path / "release.json").write_bytes(content)
    (tmp_path / "release-1-of-2.json").write_bytes(content)
    said: list[str] = []
    todo = jobs(tmp_path, 1)
    Record(tmp_path, todo, said.append).close(130)
    assert (tmp_path / "release.json.old").read_bytes() == content
    assert (tmp_path / "release-1-of-2.json").read_bytes() == content
    assert states(tmp_path) == {todo[0].name: "not tried"}
    assert len(said) == 2


def test_nothing_in_an_earlier_record_is_believed(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_AbCdEfGhIjKlMnOpQrSt")
    row = {
        "model": "x\x1b[2J<script>",
        "state": "published",
        "folder": "../../etc",
        "link": "javascript:alert(1)",
        "next": "rm -rf ~; bit-convert x",
        "error": "hf_AbCdEfGhIjKlMnOpQrSt",
    }
    totals = {"models": 99, "states": {}, "seconds": 0, "bytes": 0}
    content = {"schema": 1, "version": "1", "command": "", "updated": 0, "finished": True, "totals": totals}
    (tmp_path / "release.json").write_text(json.dumps({**content, "models": [row]}))
    Record(tmp_path, [], silent).close(0)
    (found,) = record_of(tmp_path)["models"]
    assert record_of(tmp_path)["totals"]["models"] == 1
    assert found["next"] == ""
    assert found["error"] == "***"
    assert "\x1b" not in found["model"]
    page = (tmp_path / "release.html").read_text()
    for hostile in ("x\x1b", "<script>x", "javascript:", "rm -rf", 'etc"', "AbCdEf"):
        assert hostile not in page.replace("&lt;script&gt;", "")
    assert page.count("<script>") == 1


# Commands to type next


@pytest.mark.parametrize(
    ("how", "to"),
    [
        (ConvertOptions(), None),
        (
            ConvertOptions(layout="timm", dtype="bfloat16", max_shard_size=10**9, oracles=("tensorflow", "keras")),
            PublishOptions(repo_id="me/it's", private=True, tag="v 1"),
        ),
        (ConvertOptions(verify=False, force=True, offline=True, pool_padding="-inf"), None),
        (ConvertOptions(exact="logits", patience=5.0), PublishOptions(namespace="me", patience=5.0)),
        (ConvertOptions(), PublishOptions(hub=Path("hub"), namespace="me")),
    ],
    ids=range(5),
)  # fmt: skip
def test_the_command_to_do_it_again_means_the_same_job(how, to, tmp_path):
    (job,) = jobs(tmp_path / "a b", 1)
    job = Job(replace(job.request, options=how), to)
    program, *words = shlex.split(again(job, "--debug"))
    assert program == "bit-convert"
    options = convert.make_context(program, words).params
    run = RunOptions.of({**options, "variant": options["name_or_path"]})
    assert run.variant == job.name
    assert (run.output, run.push, run.how) == (tmp_path / "a b", to is not None, how)
    assert run.publish == (to or PublishOptions())
    assert run.shown.debug


def test_what_failed_is_to_be_tried_again_and_a_defect_with_a_traceback(tmp_path):
    todo = jobs(Path("models"), 2, ME)
    record = Record(tmp_path, todo, silent)
    record.add(0, failed(todo[0]))
    record.add(1, failed(todo[1], DefectError("a defect")))
    record.close(70)
    commands = [row["next"] for row in record_of(tmp_path)["models"]]
    assert commands == [
        "bit-convert BiT-digits --output models --push --namespace me",
        f"bit-convert {todo[1].name} --output models --push --namespace me --debug",
    ]


def test_a_command_holds_no_secret_and_is_one_of_ours():
    job = Job(Request(None, "https://user:secret12@host/x.npz?token=abcdef", Path("out"), ConvertOptions()))
    line = again(job)
    assert "secret12" not in line
    assert "abcdef" not in line
    assert is_ours(line)
    for other in ("", "rm x", "bit-convert x; rm y", "bit-convert $(rm x)", "bit-convert 'x", "bit-convert x\nrm y"):
        assert not is_ours(other)


def test_what_was_only_converted_is_audited_where_it_lies(tmp_path):
    job = called("h5/it", tmp_path)
    assert audit(job, published(job)) == f"bit-verify {tmp_path}/h5-it --against h5/it"


def test_what_was_discarded_is_audited_in_its_folder_hub(tmp_path):
    (job,) = jobs(tmp_path, 1, PublishOptions(hub=tmp_path / "a hub"))
    result = published(job)
    assert result.publication is not None
    place = replace(result.publication, url=(tmp_path / "a hub" / "snapshots").as_uri())
    line = audit(job, replace(result, publication=place, discarded=True))
    assert shlex.split(line) == ["bit-verify", f"{tmp_path}/a hub/snapshots", "--against", "BiT-digits"]


# Schemas


@pytest.mark.parametrize("name", SCHEMAS)
def test_shipped_schemas_are_those_of_what_is_written(name):
    assert json.loads(file_of(name).read_text(encoding="utf-8")) == SCHEMAS[name](), (
        "python -m converters.release.schemas"
    )


def test_what_is_written_fits_the_schemas(tmp_path):
    todo = jobs(tmp_path, 2, ME)
    log, record = EventLog(tmp_path / "events", silent), Record(tmp_path, todo, silent)
    for number, (job, result) in enumerate(zip(todo, (published(todo[0]), failed(todo[1])), strict=True)):
        event = Event(job.name, result.state, result.seconds, error=str(result.error or ""), number=number)
        log(event)
        record(event)
        record.add(number, result)
    record.close(4)
    content = record_of(tmp_path)
    msgspec.convert(content, Content, strict=True)
    assert_keys(content, SCHEMAS["release"]())
    for line in (tmp_path / "events").read_bytes().splitlines():
        assert_keys(strict(line), SCHEMAS["events"]())


def assert_keys(content: dict, schema: dict) -> None:
    """What is written has each key that the schema names, and no other."""
    assert set(content) == set(schema["properties"]) == set(schema["required"])
    for row in content.get("models", ()):
        assert set(row) == set(schema["$defs"]["Row"]["required"])


def test_errors_of_any_kind_do_not_end_a_run(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("converters.release.page.render", lambda content: 1 / 0)
    (job,) = jobs(tmp_path, 1)
    record = Record(tmp_path, [job], said.append)
    record.add(0, failed(job, BitConvertError("x")))
    record.close(1)
    assert len(said) == 1
    assert "ZeroDivisionError" in said[0]
    assert states(tmp_path) == {job.name: "failed"}
