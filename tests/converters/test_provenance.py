"""provenance.json and model.sig, held against in-toto's own classes and the signing library's own verifier."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from converters.cli.commands import verify
from tests.command_line import audited, converted, refused, run
from tests.file_server import FileServer

PROVENANCE, SIGNATURE = "provenance.json", "model.sig"
SECRET = "SecretSecretSecret"


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    converted(checkpoint, folder)
    return folder


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "tiny"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stated(folder: Path) -> dict:
    return json.loads((folder / PROVENANCE).read_text())


def checked(folder: Path, *options: object, status: int = 1) -> str:
    """What ``bit-verify --check`` says."""
    result = run("--check", folder / "parity.json", "--quiet", *options, command=verify)
    assert result.exit_code == status, result.output
    return result.output


# ------------------------------------------------------------------------------------------------------- provenance


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ((), ["model.safetensors"]),
        (("--layout", "npz"), ["BiT-R8x0.5.npz"]),
        (
            ("--layout", "original", "--max-shard-size", "400KB"),
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
        ),
        (("--dtype", "bfloat16", "--no-verify"), ["model.safetensors"]),
    ],
    ids=["transformers", "npz", "shards", "unverified"],
)
def test_subjects_are_the_files_and_the_source_is_the_checkpoint(checkpoint, tmp_path, options, weights):
    entry = converted(checkpoint, tmp_path / "tiny", *options)
    statement = stated(tmp_path / "tiny")
    subjects = {each["name"]: each["digest"] for each in statement["subject"]}
    assert subjects == {
        name: {"sha256": sha256(tmp_path / "tiny" / name)}
        for name in (*weights, "config.json", "preprocessor_config.json")
    }
    assert (statement["_type"], statement["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    assert definition(statement)["resolvedDependencies"] == [
        {"name": "tiny.npz", "digest": {"sha256": sha256(checkpoint)}}
    ]
    given = dict(zip(options[::2], options[1::2], strict=False))
    assert parameters(statement)["layout"] == given.get("--layout", "transformers")
    assert parameters(statement)["dtype"] == given.get("--dtype", "float32")
    assert entry["files"] == sorted(path.name for path in (tmp_path / "tiny").iterdir())


def test_it_is_a_statement_and_a_provenance_by_in_toto(folder):
    pytest.importorskip("model_signing")  # which brings in-toto
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as Message

    content = stated(folder)
    Statement.copy_from_pb(json_format.ParseDict(content, Message())).validate()
    predicate = json_format.ParseDict(content["predicate"], Provenance())  # refuses a field that it does not know
    assert predicate.build_definition.resolved_dependencies[0].digest["sha256"]
    assert predicate.run_details.builder.version["bit-convert"]


def test_it_follows_from_source_options_and_version(checkpoint, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copyfile(checkpoint, elsewhere / "tiny.npz")
    converted(elsewhere / "tiny.npz", elsewhere / "another name", "--no-verify")
    assert (elsewhere / "another name" / PROVENANCE).read_bytes() == (folder / PROVENANCE).read_bytes()
    assert str(tmp_path) not in (folder / PROVENANCE).read_text()
    assert not [word for word in ("time", "host", "user", "2026") if word in (folder / PROVENANCE).read_text()]


def test_an_address_is_written_without_its_secrets(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    with FileServer({"/tiny.npz": checkpoint.read_bytes()}) as server:
        address = server.url(f"/tiny.npz?token={SECRET}", user=f"me:{SECRET}")
        converted(address, tmp_path / "tiny", "--no-verify")
        (source,) = definition(stated(tmp_path / "tiny"))["resolvedDependencies"]
        assert source["uri"] == server.url("/tiny.npz")
    assert source["digest"] == {"sha256": sha256(checkpoint)}


def test_the_checkpoint_of_the_package_has_the_address_of_the_package(tmp_path):
    assert run("--variant", "BiT-digits", "--output", tmp_path, "--no-verify", "--quiet").exit_code == 0
    (source,) = definition(stated(tmp_path / "BiT-digits"))["resolvedDependencies"]
    assert source["uri"].startswith("pkg:pypi/bit-convert@")


def altered(folder: Path, change) -> None:
    content = stated(folder)
    change(content)
    (folder / PROVENANCE).write_text(json.dumps(content))


def definition(content: dict) -> dict:
    return content["predicate"]["buildDefinition"]


def parameters(content: dict) -> dict:
    return definition(content)["externalParameters"]


ALTERED = {
    "another digest": lambda c: c["subject"][1]["digest"].update(sha256="0" * 64),
    "a file less": lambda c: c["subject"].pop(1),
    "a renamed file": lambda c: c["subject"][1].update(name="weights.bin"),
    "a file of a name that none can have": lambda c: c["subject"][1].update(name="x" * 300),
    "a file twice": lambda c: c["subject"].append(c["subject"][1]),
    "no subject": lambda c: c.update(subject=None),
    "another source": lambda c: definition(c)["resolvedDependencies"][0]["digest"].update(sha256="0"),
    "no source": lambda c: definition(c).update(resolvedDependencies=[]),
    "another option": lambda c: parameters(c).update(dtype="float16"),
    "an option more": lambda c: parameters(c).update(force=True),
    "a time": lambda c: c["predicate"]["runDetails"].update(metadata={"startedOn": "2026-01-01T00:00:00Z"}),
    "another builder": lambda c: c["predicate"]["runDetails"]["builder"].update(id="https://example.com"),
    "another predicate": lambda c: c.update(predicateType="https://example.com"),
    "a field under the path of another": lambda c: (
        parameters(c).update(dtype="float16"),
        c.update({"predicate.buildDefinition.externalParameters.dtype": "float32"}),
    ),
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_what_was_altered_is_found(checkpoint, folder, change):
    altered(folder, change)
    assert PROVENANCE in checked(folder)
    assert PROVENANCE in checked(folder, "--against", checkpoint)
    assert PROVENANCE in refused(2, "--checkpoint", checkpoint, "--output", folder)


def test_an_audit_calls_it_a_fault_of_provenance(checkpoint, folder, tmp_path):
    altered(folder, ALTERED["another source"])
    report = audited(folder, checkpoint, tmp_path / "report")
    (fault,) = report["faults"]
    assert fault["kind"] == "provenance"
    assert fault["place"].startswith(f"{PROVENANCE} predicate.buildDefinition.resolvedDependencies")


@pytest.mark.parametrize("content", ['{"buildType": "theirs"}', "no JSON"])
def test_another_builder_s_provenance_is_nobody_s_fault(checkpoint, folder, tmp_path, content):
    (folder / PROVENANCE).write_text(content)
    report = audited(folder, checkpoint, tmp_path / "report")
    assert report["passed"]
    assert [each["place"] for each in report["inspected"] if each["fate"] == "unknown"] == [PROVENANCE]


def test_what_was_altered_is_not_published(folder, checkpoint, tmp_path):
    from converters import BitConvertError, convert, publish

    conversion = convert(checkpoint=checkpoint, output=folder)
    altered(folder, ALTERED["another option"])
    with pytest.raises(BitConvertError, match=PROVENANCE):
        publish(conversion, repo_id="me/tiny", hub=tmp_path / "hub")


# -------------------------------------------------------------------------------------------------------- signature


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    """A folder of private keys NAME.pem and public keys NAME.pub."""
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    place = tmp_path_factory.mktemp("keys")
    kinds = {"mine": ec.SECP256R1(), "theirs": ec.SECP256R1(), "other-curve": ec.SECP256K1()}
    made = {name: ec.generate_private_key(curve) for name, curve in kinds.items()}
    for name, key in {**made, "rsa": rsa.generate_private_key(65537, 2048)}.items():
        plain = (form.Encoding.PEM, form.PrivateFormat.PKCS8)
        (place / f"{name}.pem").write_bytes(key.private_bytes(*plain, form.NoEncryption()))
        (place / f"{name}.pub").write_bytes(
            key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        )
    locked = made["mine"].private_bytes(*plain, form.BestAvailableEncryption(b"password"))
    (place / "encrypted.pem").write_bytes(locked)
    (place / "text.pem").write_text("no key")
    return place


@pytest.fixture
def signed(keys, checkpoint, folder) -> Path:
    converted(checkpoint, folder, "--sign-key", keys / "mine.pem")
    return folder


def test_the_library_verifies_what_was_signed(keys, signed):
    from model_signing import hashing, verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=keys / "mine.pub")
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE]))
    config.verify(signed, signed / SIGNATURE)
    (signed / "README.md").write_text("another card")
    with pytest.raises(ValueError, match=r"README\.md"):
        config.verify(signed, signed / SIGNATURE)


def test_a_signature_that_holds_is_kept(keys, checkpoint, signed):
    before = (signed / SIGNATURE).read_bytes()
    assert SIGNATURE in converted(checkpoint, signed, "--sign-key", keys / "mine.pem")["files"]
    assert (signed / SIGNATURE).read_bytes() == before
    converted(checkpoint, signed, "--sign-key", keys / "theirs.pem")
    assert (signed / SIGNATURE).read_bytes() != before
    assert not [path for path in signed.parent.iterdir() if ".partial" in path.name]


def inspected(report: dict) -> dict[str, dict]:
    return {each["place"]: each for each in report["inspected"]}


def test_bit_verify_says_whether_it_holds(keys, checkpoint, signed, tmp_path):
    report = audited(signed, checkpoint, tmp_path / "report", "--verify-key", keys / "mine.pub")
    assert report["passed"]
    assert inspected(report)[SIGNATURE]["fate"] == "compared"
    checked(signed, "--verify-key", keys / "mine.pub", status=0)
    text = run(signed, "--against", checkpoint, "--quiet", "--report", tmp_path / "report", command=verify).stdout
    assert "not verified: give --verify-key" in text


def test_a_signature_that_does_not_hold_is_a_fault(keys, checkpoint, signed, tmp_path):
    (signed / "README.md").write_text("another card")
    report = audited(signed, checkpoint, tmp_path / "report", "--verify-key", keys / "mine.pub")
    (fault,) = report["faults"]
    assert (fault["kind"], fault["place"]) == ("signature", SIGNATURE)
    assert "README.md is another file" in fault["detail"]
    without = audited(signed, checkpoint, tmp_path / "report")
    assert without["passed"]  # a card makes no other model
    assert inspected(without)[SIGNATURE]["reason"] == "it does not hold: README.md is another file"


def unsigned(folder: Path) -> None:
    (folder / SIGNATURE).unlink()


def broken(folder: Path) -> None:
    (folder / SIGNATURE).write_text("{}")


def another_statement(folder: Path) -> None:
    """Digests of the files that are there, under the old signature."""
    import base64

    (folder / "README.md").write_text("another card")
    bundle = json.loads((folder / SIGNATURE).read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    for resource in statement["predicate"]["resources"]:
        resource["digest"] = sha256(folder / resource["name"])
    digests = b"".join(bytes.fromhex(each["digest"]) for each in statement["predicate"]["resources"])
    statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(digests).hexdigest()
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (folder / SIGNATURE).write_text(json.dumps(bundle))


@pytest.mark.parametrize(
    ("key", "change", "why"),
    [
        ("theirs", None, "another key"),
        ("mine", unsigned, "there is none"),
        ("mine", broken, "no signature"),
        ("mine", another_statement, "was not signed with this key"),
    ],
)
def test_what_does_not_hold_is_named(keys, signed, key, change, why):
    if change:
        change(signed)
    assert why in checked(signed, "--verify-key", keys / f"{key}.pub")


@pytest.mark.parametrize("name", ["encrypted", "rsa", "other-curve", "text"])
def test_a_key_that_cannot_sign_is_refused_before_the_work(keys, checkpoint, tmp_path, name):
    key = keys / f"{name}.pem"
    assert str(key) in refused(2, "--checkpoint", checkpoint, "--output", tmp_path / "new", "--sign-key", key)
    assert not (tmp_path / "new").exists()


def test_a_private_key_does_not_verify(keys, checkpoint, folder):
    arguments = (folder, "--against", checkpoint, "--verify-key", keys / "mine.pem")
    assert "-pubout" in refused(2, *arguments, command=verify)


def test_without_the_library_it_is_named(keys, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "model_signing", None)
    arguments = ("--checkpoint", checkpoint, "--output", tmp_path / "new", "--sign-key", keys / "mine.pem")
    assert "bit-convert[sign]" in refused(2, *arguments)


def published(checkpoint: Path, output: Path, hub: Path, *options: object) -> bool:
    """Converts and publishes; whether that made a commit."""
    entry = converted(checkpoint, output, "--push", "--repo-id", "me/tiny", "--hub", hub, *options)
    return entry["publication"]["changed"]


def test_publishing_again_keeps_a_signature_that_holds(keys, checkpoint, tmp_path):
    hub = tmp_path / "hub"
    mine, theirs = (("--sign-key", keys / f"{name}.pem") for name in ("mine", "theirs"))
    assert published(checkpoint, tmp_path / "first", hub, *mine)
    assert not published(checkpoint, tmp_path / "second", hub, *mine)
    assert not published(checkpoint, tmp_path / "third", hub)
    snapshots = hub / "models--me--tiny" / "snapshots"
    (snapshot,) = snapshots.iterdir()
    assert (snapshot / SIGNATURE).read_bytes() == (tmp_path / "first" / SIGNATURE).read_bytes()
    checked(snapshot, "--verify-key", keys / "mine.pub", status=0)
    assert published(checkpoint, tmp_path / "second", hub, *theirs)
    assert not published(checkpoint, tmp_path / "third", hub, *theirs)


def test_a_signature_of_what_is_replaced_goes(keys, checkpoint, tmp_path):
    hub = tmp_path / "hub"
    published(checkpoint, tmp_path / "first", hub, "--sign-key", keys / "mine.pem")
    published(checkpoint, tmp_path / "second", hub, "--dtype", "float16")
    commit = (hub / "models--me--tiny" / "refs" / "main").read_text()
    names = {path.name for path in (hub / "models--me--tiny" / "snapshots" / commit).iterdir()}
    assert PROVENANCE in names
    assert SIGNATURE not in names
