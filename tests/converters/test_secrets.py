"""A secret given at any door of the commands comes out at none: stdout, stderr, or a file."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import pytest

from converters import redaction
from converters.api import audit
from converters.api import convert as convert_in_python
from converters.cli.commands import convert, verify
from converters.errors import BitConvertError
from tests.command_line import elsewhere, run
from tests.file_server import Fault, FileServer

SECRET = "sEcReTsEnTiNeL"
FORMS = (SECRET, *(base64.b64encode(f"{'x' * n}{SECRET}".encode()).decode()[4:16] for n in range(3)))
"""The secret, and what base64 makes of its middle."""
ADDRESSES = (
    f"http://user:{SECRET}@127.0.0.1:1/a.npz?token={SECRET}#{SECRET}",
    f"http://{SECRET}@127.0.0.1:1/a.npz",
    f"http://user:{SECRET}@[bad/a.npz",
    f"http://user:a/{SECRET}@127.0.0.1/a.npz",
    f"http://127.0.0.1:1/a.npz?X-Amz-Signature={SECRET}",
    f"hf://user:{SECRET}@google/bit-50",
    f"hf://user:{SECRET}@[bad/",
    f"kaggle://user:{SECRET}@google/bit",
    f"gs://user:{SECRET}@bit_models/BiT.npz",
    f"ftp://user:{SECRET}@host/a.npz",
    f"user:{SECRET}@host/a.npz",
)
CONVERT = (
    "--checkpoint",
    "--variant",
    "--output",
    "--images",
    "--hub",
    "--repo-id",
    "--layout",
    "--nonsense",
    "BARE",
    "--sign-key",
)
VERIFY = ("TARGET", "--against", "--check", "--report", "--variant", "--images", "--oracle")
OUTPUTS = ((), ("--json", "--debug"))


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch, tmp_path):
    monkeypatch.setattr(redaction, "_remembered", set())
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def holds_no_secret(text: str, folder: Path) -> None:
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for form in FORMS:
        assert form not in text
        assert not any(form.encode() in content for content in written)


def refused_without_secret(words: list[str], output: tuple[str, ...], command, monkeypatch, tmp_path: Path) -> None:
    words = [*words, "--offline", *output]
    monkeypatch.setattr(sys, "argv", [command.name, *words])
    result = run(*words, command=command)
    assert result.exit_code in (2, 3, 4), result.output
    holds_no_secret(result.output, tmp_path)
    if "--json" in output:
        content = json.loads(result.stdout)
        assert content["exit_status"] == result.exit_code
        assert "error" in content or "error" in content["results"][0]


@pytest.mark.parametrize("output", OUTPUTS, ids=" ".join)
@pytest.mark.parametrize("option", CONVERT)
def test_no_option_of_bit_convert_tells_a_secret(option, output, checkpoint, monkeypatch, tmp_path):
    for address in ADDRESSES:
        words = [address] if option == "BARE" else ["--variant", "BiT-M-R50x1", option, address]
        if option in ("--output", "--hub", "--repo-id"):
            words += ["--push", "--exact", "logits", "--layout", "npz"]
        refused_without_secret(words, output, convert, monkeypatch, tmp_path)


@pytest.mark.parametrize("output", OUTPUTS, ids=" ".join)
@pytest.mark.parametrize("option", VERIFY)
def test_no_option_of_bit_verify_tells_a_secret(option, output, checkpoint, monkeypatch, tmp_path):
    for address in ADDRESSES:
        against = [] if option == "--against" else ["--against", str(checkpoint)]
        words = [address, *against] if option == "TARGET" else [str(tmp_path / "none"), option, address, *against]
        refused_without_secret(words, output, verify, monkeypatch, tmp_path)


def test_dry_runs_tell_where_they_would_read(tmp_path):
    for output in ((), ("--json",)):
        for address in ADDRESSES:
            holds_no_secret(run("--checkpoint", address, "--dry-run", *output).output, tmp_path)
        result = run("--checkpoint", ADDRESSES[0], "--dry-run", *output)
        assert result.exit_code == 0
        assert "http://127.0.0.1:1/a.npz?… (download)" in result.stdout


def test_what_servers_and_redirects_echo_is_clean(tmp_path, monkeypatch):
    header = base64.b64encode(f"user:{SECRET}".encode()).decode()
    for status, reason in ((403, {}), (302, {"Location": f"/x.npz?X-Amz-Signature={SECRET}&X-Amz-Credential=AKIA"})):
        with FileServer({}) as server:
            server.faults = [Fault(status=status, headers=reason, body=f"no: {header}\x1b[2J".encode())]
            server.always = Fault(status=404, body=SECRET.encode())
            words = ["--checkpoint", server.url("/a.npz", user=f"user:{SECRET}"), "--output", str(tmp_path / "model")]
            for output in OUTPUTS:
                monkeypatch.setattr(sys, "argv", ["bit-convert", *words, *output])
                result = run(*words, *output)
                assert result.exit_code == 4
                assert "\x1b" not in result.output
                holds_no_secret(result.output, tmp_path)


def test_tokens_of_the_hub_are_not_told(tmp_path):
    token = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"
    body = json.dumps({"error": f"token {token} \x1b]0;owned\x07 is wrong"}).encode()
    with FileServer({}) as server:
        server.always = Fault(status=403, body=body, headers={"X-Error-Message": f"no: Bearer {token} \x1b[2J"})
        answers = elsewhere(
            ("convert", "--checkpoint", "hf://me/model", "--output", tmp_path / "model"),
            ("convert", "--checkpoint", "hf://me/model", "--output", tmp_path / "model", "--json", "--debug"),
            ("verify", "hf://me/model", "--against", "BiT-digits", "--debug"),
            HF_ENDPOINT=server.url("", user=f"user:{SECRET}"),
            HF_TOKEN=token,
            HF_HOME=str(tmp_path / "home"),
        )
    for status, out, err in answers:
        assert status == 4, err
        assert "\x1b" not in out + err
        assert token not in out + err
        assert base64.b64encode(token.encode()).decode()[4:24] not in out + err
        holds_no_secret(out + err, tmp_path)


def test_reports_and_pages_tell_no_secret(checkpoint, tmp_path, monkeypatch):
    """A folder's JSON may hold what its owner would not publish; an audit quotes what it does not know."""
    assert run("--checkpoint", checkpoint, "--output", tmp_path / "model").exit_code == 0
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["_name_or_path"] = config["unheard_of"] = config["hidden_act"] = f"https://me:{SECRET}@host/x?sig={SECRET}"
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    words = [str(tmp_path / "model"), "--against", str(checkpoint), "--report", str(tmp_path / "report")]
    monkeypatch.setattr(sys, "argv", ["bit-verify", *words, f"--note=hf://me:{SECRET}@x/y"])
    result = run(*words, "--markdown", command=verify)
    assert result.exit_code == 1
    assert "hidden_act" in result.stdout
    assert "unheard_of" in (tmp_path / "report" / "parity.json").read_text()
    assert "--note=hf://x/y" in (tmp_path / "report" / "parity.html").read_text()
    holds_no_secret(result.output, tmp_path / "report")


def test_errors_in_python_tell_no_secret(tmp_path):
    for address in ADDRESSES:
        with pytest.raises(BitConvertError) as caught:
            convert_in_python(checkpoint=address, output=tmp_path / "model", offline=True)
        assert SECRET not in str(caught.value)
        with pytest.raises(BitConvertError) as caught:
            audit(address, against=address, offline=True, report=tmp_path / "report")
        assert SECRET not in str(caught.value)
    assert list(tmp_path.glob("report/*")) == []
