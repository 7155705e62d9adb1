"""``--discard``: what is removed once it is published, and what the record that stays is good for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def results(*words: object) -> list[dict]:
    result = run(*words, "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["results"]


def test_what_is_not_published_is_not_discarded(checkpoint, tmp_path):
    table = f'[[release]]\ncheckpoint = "{checkpoint}"\nlayout = "npz"\n'
    (tmp_path / "plan.toml").write_text(
        f'{table}output = "{tmp_path / "kept"}"\n{table}output = "{tmp_path / "gone"}"\nrepo_id = "me/x"\npush = true\n'
    )
    kept, gone = results("--plan", tmp_path / "plan.toml", "--discard", "--hub", tmp_path / "hub")
    assert ("discarded" in kept, "discarded" in gone) == (False, True)
    assert (tmp_path / "kept" / "parity.json").is_file()
    assert not (tmp_path / "gone").exists()


def test_what_another_version_published_is_renewed_when_that_is_asked_for(checkpoint, tmp_path, cache):
    words = ("--checkpoint", checkpoint, "--output", tmp_path / "model", "--layout", "npz", "--push", "--discard")
    words = (*words, "--hub", tmp_path / "hub", "--repo-id", "me/x")
    assert results(*words)[0]["state"] == "published"
    for options in ((), ("--refresh",)):
        (known,) = results(*words, *options)
        assert (known["state"], "folder" in known) == ("unchanged", False), options
    (record,) = (cache / "published").iterdir()
    record.write_text(json.dumps(json.loads(record.read_text()) | {"release": "0.0.1"}))
    assert "folder" not in results(*words)[0]
    assert "folder" in results(*words, "--refresh")[0]
