"""A whole run by the command line: interrupted, out of disk, refused and kept waiting by a Hub over HTTP.

Its processes begin with PyTorch loaded (``tests/processes.py``), but for those of one run, which are a user's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import processes
from tests.checkpoints import make_checkpoint
from tests.converters.test_disks import disk
from tests.file_server import FileServer
from tests.hub_server import HubServer, User

__all__ = ["disk"]
pytestmark = pytest.mark.slow
MODELS = [f"m{index}" for index in range(6)]
TOKEN, READER = "hf_" + "SecretSecretSecret", "hf_" + "ReaderReaderReader"


@pytest.fixture
def plan(tmp_path) -> Path:
    lines = ["[defaults]\npush = true\n"]
    for index, name in enumerate(MODELS):
        np.savez(tmp_path / f"{name}.npz", **make_checkpoint((1,), 32, 5 + index, mids=(32,)))
        place = f'checkpoint = "{tmp_path / name}.npz"\noutput = "{tmp_path / "disk0" / name}"'
        lines.append(f'[[release]]\n{place}\nrepo_id = "me/{name}"\n')
    (tmp_path / "plan.toml").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "plan.toml"


PROGRAM = f"""
{processes.FORKED}
from converters.cli import convert
convert(prog_name="python -m converters")
"""


def begun(plan: Path, *words: str, how: tuple[str, str] = ("-c", PROGRAM), **environment: str) -> subprocess.Popen[str]:
    (plan.parent / "tmp").mkdir(exist_ok=True)
    kind = processes.Popen if PROGRAM in how else subprocess.Popen
    return kind(
        [sys.executable, *how, "--plan", str(plan), "--json", *words],
        env={**os.environ, "TMPDIR": str(plan.parent / "tmp"), "HF_HUB_DISABLE_XET": "1", **environment},
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(run: subprocess.Popen[str]) -> tuple[dict[str, Any], list[str]]:
    """The document, which is whole and has each model once, and the lines on stderr."""
    out, error = run.communicate(timeout=300)
    content = json.loads(out)
    assert content["exit_status"] == run.returncode, error
    assert len(content["results"]) == len(MODELS)
    return content, error.splitlines()


def states(content: dict[str, Any]) -> Counter[str]:
    return Counter(result["state"] for result in content["results"])


def left(plan: Path) -> list[str]:
    folder = plan.parent / "disk0"
    return [path.name for path in (*folder.glob(".*"), *(plan.parent / "tmp").iterdir())]


@pytest.mark.parametrize(
    ("how", "status", "word", "jobs"),
    [(signal.SIGINT, 130, "interrupted", "2"), (signal.SIGTERM, 143, "terminated", "1")],
)
def test_an_interrupted_run_ends_soon_and_says_what_it_did(plan, how, status, word, jobs):
    hub = ("--hub", str(plan.parent / "hub"))
    run = begun(plan, "--jobs", jobs, "--quiet", *hub)
    while len([*(plan.parent / "hub").glob("models--*/refs/main")]) < 2:
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(how)
    start = time.monotonic()
    content, lines = ended(run)
    assert time.monotonic() - start < 10
    assert run.returncode == status
    assert content["error"] == word
    found = states(content)
    assert found["published"] >= 1
    assert found["not tried"] == len(MODELS) - found["published"] > 0
    assert [line for line in lines if line.startswith(f"bit-convert: {word}; run it again to go on")] == lines[-1:]
    assert left(plan) == []
    content, _ = ended(begun(plan, "--jobs", "1", "--quiet", *hub))
    again = states(content)
    assert again["published"] + again["unchanged"] == len(MODELS)
    assert len([*(plan.parent / "hub").glob("models--*/snapshots/*")]) == len(MODELS)


def test_a_full_disk_ends_the_run_with_a_result_for_every_model(plan, disk):
    assert disk("size=400k") == plan.parent / "disk0"
    run = begun(plan, "--jobs", "2", "--hub", str(plan.parent / "hub"))
    content, _ = ended(run)
    assert run.returncode == 2
    found = states(content)
    assert found["published"] >= 1
    assert found["failed"] in (1, 2)
    assert found["not tried"] == len(MODELS) - found["published"] - found["failed"] > 0
    for result in content["results"]:
        assert (result["exit_status"] == 0) == (result["state"] == "published")
        assert result["state"] == "published" or "No space left" in result["error"]
    assert left(plan) == []


def test_a_refused_token_ends_the_run_at_once(plan):
    with HubServer({READER: User("me", role="read")}) as hub:
        hub_of = {"HF_ENDPOINT": hub.url, "HF_TOKEN": READER, "HF_HOME": str(plan.parent / "home")}
        run = begun(plan, "--jobs", "2", how=("-m", "converters"), **hub_of)
        content, lines = ended(run)
    assert run.returncode == 4
    assert states(content)["failed"] <= 2
    assert states(content)["not tried"] >= len(MODELS) - 2
    assert READER not in json.dumps(content) + "".join(lines)


def test_a_hub_that_asks_to_wait_is_waited_for_and_every_model_is_published_once(plan):
    with HubServer({TOKEN: User("me")}) as hub:
        asked = time.monotonic()
        hub.fail("commit", 429, times=3, headers={"RateLimit": '"api";r=0;t=7'})
        hub_of = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(plan.parent / "home")}
        run = begun(plan, "--jobs", "2", **hub_of)
        content, _ = ended(run)
        assert time.monotonic() - asked > 7
        assert run.returncode == 0
        assert states(content) == {"published": len(MODELS)}
        ours = {
            name: [each for each in repo.history() if "bit-convert" in each.title]
            for name, repo in hub.repositories.items()
        }
        assert {name: len(commits) for name, commits in ours.items()} == {f"me/{name}": 1 for name in MODELS}
        hub.requests.clear()
        content, _ = ended(
            begun(plan, "--jobs", "2", HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN, HF_HOME=str(plan.parent / "home"))
        )
        assert states(content) == {"unchanged": len(MODELS)}
        assert len(hub.requests) <= len(MODELS) + 5


def test_discarded_models_cost_one_request_and_no_byte(plan):
    with HubServer({TOKEN: User("me")}) as hub:
        hub_of = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(plan.parent / "home")}
        first, _ = ended(begun(plan, "--jobs", "2", "--discard", **hub_of))
        assert states(first) == {"published": len(MODELS)}
        assert not [path for path in (plan.parent / "disk0").iterdir() if path.is_dir()]
        for name in MODELS:
            (plan.parent / f"{name}.npz").rename(plan.parent / f"{name}.kept")
        hub.requests.clear()
        again, _ = ended(begun(plan, "--jobs", "2", "--discard", **hub_of))
        assert states(again) == {"unchanged": len(MODELS)}
        # Of another kind is what huggingface_hub asks once a process, in an environment of certain tools.
        assert Counter(kind for kind in hub.requests if kind != "unknown") == {"model_info": len(MODELS)}
        del hub.repositories["me/m0"]
        last = begun(plan, "--jobs", "2", "--discard", **hub_of)
        content, _ = ended(last)
        assert last.returncode == 3, "its checkpoint is gone"
        assert states(content) == {"unchanged": len(MODELS) - 1, "failed": 1}


def test_a_download_that_two_layouts_are_made_from_is_fetched_once_and_then_discarded(plan):
    checkpoint = plan.parent / "m0.npz"
    with FileServer({"/m0.npz": checkpoint.read_bytes()}) as server:
        tables = [
            f'[[release]]\ncheckpoint = "{server.url("/m0.npz")}"\nlayout = "{layout}"\n'
            f'output = "{plan.parent / "disk0" / layout}"\nrepo_id = "me/{layout}"\n'
            for layout in ("transformers", "original", "npz")
        ]
        plan.write_text("\n".join(["[defaults]\npush = true\n", *tables]), encoding="utf-8")
        cache = plan.parent / "cache"
        hub = ("--hub", str(plan.parent / "hub"))
        run = begun(plan, "--jobs", "1", "--discard", *hub, BIT_CONVERT_CACHE=str(cache))
        out, error = run.communicate(timeout=300)
        assert run.returncode == 0, error
        assert states(json.loads(out)) == {"published": 3}
        assert server.sent < 1.5 * checkpoint.stat().st_size
    assert not [*cache.rglob("*.npz")]
