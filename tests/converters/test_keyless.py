"""Signing with an identity: everything of model-signing and sigstore but their requests, which a fake answers."""

from __future__ import annotations

import base64
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import model_signing  # noqa: F401 - before cryptography, which it brings
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from converters.cli.commands import verify
from converters.errors import HubError, UsageError
from converters.files import SIGNATURE, sha256
from converters.folder import keyless
from tests.command_line import audited, converted, refused, run

WHO = "me@example.org"


def identity_token(minutes: float = 5) -> str:
    """A JSON web token, whose signature sigstore's server would look at, and its client does not."""
    now = int(time.time())
    claims = {
        "iss": "https://accounts.example.org",
        "aud": "sigstore",
        "sub": WHO,
        "email": WHO,
        "email_verified": True,
    }
    claims |= {"iat": now - 600, "nbf": now - 600, "exp": now + int(60 * minutes)}
    parts = ({"alg": "RS256", "typ": "JWT"}, claims, "signature")
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


class Sigstore:
    """sigstore's service: it certifies a key of some minutes, and signs what it is given."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.key = ec.generate_private_key(ec.SECP256R1())
        name, now = x509.Name([]), datetime.now(UTC)
        made = x509.CertificateBuilder(name, name, self.key.public_key(), 1, now, now + timedelta(minutes=10))
        self.certificate = made.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(WHO)]), True).sign(
            self.key, hashes.SHA256()
        )

    def trust(self) -> SimpleNamespace:
        if self.failure:
            raise self.failure
        return SimpleNamespace(signing_config=SimpleNamespace(get_oidc_url=lambda: "https://oauth2.example.org/auth"))

    @contextmanager
    def signer(self, token):
        self.asked.append(token.identity)
        yield SimpleNamespace(sign_dsse=self.sign)

    def sign(self, statement) -> SimpleNamespace:
        payload = statement._contents
        signature = self.key.sign(to_be_signed(payload), ec.ECDSA(hashes.SHA256()))
        raw = base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()
        bundle = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"certificate": {"rawBytes": raw}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": "application/vnd.in-toto+json",
                "signatures": [{"sig": base64.b64encode(signature).decode()}],
            },
        }
        return SimpleNamespace(to_json=lambda: json.dumps(bundle))


def to_be_signed(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding (github.com/secure-systems-lab/dsse/blob/master/protocol.md)."""
    kind = b"application/vnd.in-toto+json"
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@pytest.fixture
def sigstore(monkeypatch) -> Sigstore:
    from model_signing._signing import sign_sigstore

    service = Sigstore()
    monkeypatch.setattr(sign_sigstore.sigstore_models.ClientTrustConfig, "production", service.trust)
    monkeypatch.setattr(sign_sigstore.sigstore_oidc, "Issuer", lambda url: SimpleNamespace(url=url))
    monkeypatch.setattr(sign_sigstore.sigstore_signer.SigningContext, "from_trust_config", lambda trust: service)
    monkeypatch.setenv(keyless.TOKEN, identity_token())
    return service


@pytest.fixture(scope="module")
def checkpoint(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.npz"
    np.savez(path, **tensors)
    return path


def statement_of(folder) -> tuple[dict, dict]:
    bundle = json.loads((folder / SIGNATURE).read_text())
    return bundle, json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))


def test_every_file_is_signed_with_the_identity(sigstore, checkpoint, tmp_path):
    folder = tmp_path / "model"
    assert SIGNATURE in converted(checkpoint, folder, "--sign")["files"]
    assert sigstore.asked == [WHO]
    bundle, statement = statement_of(folder)
    signed = {each["name"]: each["digest"] for each in statement["predicate"]["resources"]}
    assert signed == {path.name: sha256(path) for path in folder.iterdir() if path.name != SIGNATURE}
    envelope = bundle["dsseEnvelope"]
    sigstore.key.public_key().verify(
        base64.b64decode(envelope["signatures"][0]["sig"]),
        to_be_signed(base64.b64decode(envelope["payload"])),
        ec.ECDSA(hashes.SHA256()),
    )


def test_threads_that_sign_leave_stdout_where_it_was(sigstore, tmp_path, monkeypatch):
    seconds, write, stdout = iter((0.05, 0.1)), keyless.signature.write, sys.stdout

    def slow(*arguments) -> None:
        time.sleep(next(seconds))
        write(*arguments)

    def sign(name: str) -> bool:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        return keyless.sign(tmp_path / name, ["file"])

    monkeypatch.setattr(keyless.signature, "write", slow)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(sign, ("a", "b"))) == [True, True]
    assert sys.stdout is stdout


def test_a_signature_of_the_same_files_is_kept_here_and_on_the_hub(sigstore, checkpoint, tmp_path):
    def published(output, *more) -> bool:
        options = ("--sign", "--push", "--repo-id", "me/tiny", "--hub", tmp_path / "hub", *more)
        return converted(checkpoint, tmp_path / output, *options)["publication"]["changed"]

    assert published("first")
    before = (tmp_path / "first" / SIGNATURE).read_bytes()
    assert not published("first")
    assert (tmp_path / "first" / SIGNATURE).read_bytes() == before
    assert len(sigstore.asked) == 1
    assert not published("second")  # signed again, of the same files: the hub keeps what it has
    assert len(sigstore.asked) == 2
    assert published("third", "--dtype", "float16")


def test_an_audit_says_what_it_cannot_tell(sigstore, checkpoint, tmp_path):
    folder = tmp_path / "model"
    converted(checkpoint, folder, "--sign")
    report = audited(folder, checkpoint, tmp_path / "report", "--runner", "bit_ref")
    (said,) = [each["reason"] for each in report["inspected"] if each["place"] == SIGNATURE]
    assert report["passed"]
    assert "model_signing verify sigstore" in said
    key = tmp_path / "key.pub"
    from cryptography.hazmat.primitives.serialization import PublicFormat

    key.write_bytes(sigstore.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    checked = run("--check", folder / "parity.json", "--verify-key", key, command=verify)
    assert checked.exit_code == 1
    assert "an identity, not with a key" in checked.stdout + checked.stderr
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    faults = audited(folder, checkpoint, tmp_path / "report", "--runner", "bit_ref")["faults"]
    assert "signature" in {fault["kind"] for fault in faults}


def network_errors():
    import requests
    from sigstore.errors import NetworkError, TUFError
    from sigstore.oidc import IssuerError

    return [
        NetworkError("no route"),
        TUFError("failed to refresh"),
        requests.ConnectionError("Name or service not known"),
        IssuerError("is down"),
        RuntimeError(""),
    ]


@pytest.mark.parametrize("number", range(5))
def test_without_a_network_the_folder_stays_unsigned_and_signing_goes_on_later(sigstore, checkpoint, tmp_path, number):
    sigstore.failure = network_errors()[number]
    folder = tmp_path / "model"
    arguments = ("--checkpoint", checkpoint, "--output", folder, "--sign")
    said = refused(HubError.exit_status, *arguments, "--no-verify", "--quiet")
    assert "sigstore could not be reached" in said
    assert (folder / "model.safetensors").exists()
    assert not (folder / SIGNATURE).exists()
    assert not [path for path in folder.parent.iterdir() if ".partial" in path.name]
    sigstore.failure = None
    assert SIGNATURE in converted(checkpoint, folder, "--sign", "--no-verify")["files"]


def test_an_identity_that_expired_or_is_none_is_not_accepted(sigstore, checkpoint, tmp_path, monkeypatch):
    arguments = ("--checkpoint", checkpoint, "--output", tmp_path / "model", "--sign", "--no-verify", "--quiet")
    for token in (identity_token(-5), "no.token.it-is"):
        monkeypatch.setenv(keyless.TOKEN, token)
        said = refused(UsageError.exit_status, *arguments)
        assert "the identity was not accepted" in said
        assert token not in said
    assert not sigstore.asked
    assert not (tmp_path / "model").exists()


def test_what_cannot_be_signed_is_refused_before_the_work(sigstore, checkpoint, tmp_path, monkeypatch):
    arguments = ("--checkpoint", checkpoint, "--output", tmp_path / "model", "--sign")
    assert "--offline" in refused(2, *arguments, "--offline")
    assert "Leave one out" in refused(2, *arguments, "--sign-key", checkpoint)
    for name in (keyless.TOKEN, "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE"):
        monkeypatch.delenv(name, raising=False)
    assert "needs an identity" in refused(2, *arguments)
    monkeypatch.setitem(__import__("sys").modules, "model_signing", None)
    assert "bit-convert[sign]" in refused(2, *arguments)
    assert not (tmp_path / "model").exists()
