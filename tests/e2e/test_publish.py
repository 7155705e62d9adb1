"""Published by the command line, found by the libraries: into a folder hub, and to a Hub on 127.0.0.1."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from tests.checkpoints import make_input
from tests.command_line import published_files
from tests.hub_server import HubServer, User
from tests.processes import python

TOKEN = "hf_" + "SecretSecretSecret"
READER = "hf_" + "ReaderReaderReader"
FILES = [
    *("README.md", "config.json", "model.safetensors", "parity.json", "preprocessor_config.json", "provenance.json"),
]


def run(code: str, *arguments: object, **environment: str) -> CompletedProcess[str]:
    """Python in a process of its own: huggingface_hub reads its environment when it is imported."""
    return python(code, *arguments, environment={**os.environ, "HF_HUB_DISABLE_XET": "1", **environment})


def bit_convert(*arguments: object, **environment: str) -> CompletedProcess[str]:
    return run("from converters.cli import convert; convert()", *arguments, **environment)


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("models") / "tiny"
    result = bit_convert("--checkpoint", checkpoint, "--output", place, "--exact", "logits")
    assert result.returncode == 0, result.stderr
    return place


@pytest.fixture
def hub():
    with HubServer({TOKEN: User("me"), READER: User("me", role="read")}) as server:
        yield server


def push(checkpoint: Path, folder: Path, *options: object, **environment: str) -> CompletedProcess[str]:
    return bit_convert(
        "--checkpoint", checkpoint, "--output", folder, "--exact", "logits", "--push", *options, **environment
    )


@pytest.mark.slow
@pytest.mark.parametrize("library", ["transformers", "bit_ref"])
def test_folder_hub_is_found_offline(checkpoint, folder, tmp_path, library):
    result = push(checkpoint, folder, "--hub", tmp_path / "hub", "--repo-id", "me/tiny", "--tag", "v1")
    assert result.returncode == 0, result.stderr
    np.save(tmp_path / "image.npy", make_input(1, 64, 64))
    code = (
        "import sys, numpy, torch\n"
        f"from {library} import BitForImageClassification\n"
        "hub, image = sys.argv[1:]\n"
        "for revision in ('main', 'v1'):\n"
        "    model = BitForImageClassification.from_pretrained('me/tiny', cache_dir=hub, revision=revision).eval()\n"
        "    with torch.inference_mode():\n"
        "        print(model(torch.from_numpy(numpy.load(image))).logits.shape)"
    )
    loaded = run(code, tmp_path / "hub", tmp_path / "image.npy", HF_HUB_OFFLINE="1")
    assert loaded.stdout.splitlines() == ["torch.Size([1, 3])"] * 2, loaded.stderr


def test_hub_gets_one_commit_under_the_tokens_user_and_none_the_second_time(checkpoint, folder, hub, tmp_path):
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path)}
    first = push(checkpoint, folder, "--json", **environment)
    assert first.returncode == 0, first.stderr
    publication = json.loads(first.stdout)["results"][0]["publication"]
    assert publication["repo_id"] == "me/BiT-R8x0.5"
    repository = hub.repositories["me/BiT-R8x0.5"]
    tree = repository.tree()
    assert {name: tree[name].content for name in FILES} == published_files(folder, "me/BiT-R8x0.5")
    assert b'from_pretrained("me/BiT-R8x0.5")' in tree["README.md"].content
    commits = len(repository.history())
    second = push(checkpoint, folder, "--json", **environment)
    assert json.loads(second.stdout)["results"][0]["publication"]["changed"] is False
    assert len(repository.history()) == commits
    assert TOKEN not in first.stdout + first.stderr + second.stdout + second.stderr


def test_token_and_message_may_be_given_and_the_token_is_shown_nowhere(checkpoint, folder, hub, tmp_path):
    words = ("--token", TOKEN, "--commit-message", "Our own title\n\nAnd why.")
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": READER, "HF_HOME": str(tmp_path)}
    published = push(checkpoint, folder, *words, "--debug", "--verbose", **environment)
    assert published.returncode == 0, published.stderr
    (repository,) = hub.repositories.values()
    assert "Our own title" in {commit.title for commit in repository.history()}
    assert TOKEN not in published.stdout + published.stderr
    refused = push(checkpoint, folder, "--token", "hf_ a\x1bb", **environment)
    assert refused.returncode == 2
    assert "--token has characters" in refused.stderr
    assert "a\x1bb" not in refused.stdout + refused.stderr
    pull_request = push(checkpoint, folder, "--namespace", "you", "--token", TOKEN, "--create-pr", **environment)
    assert TOKEN not in pull_request.stdout + pull_request.stderr


@pytest.mark.parametrize("token", [READER, "hf_" + "WrongWrongWrong"])
def test_refused_by_the_hub_is_4_in_two_lines_without_the_token(checkpoint, folder, hub, tmp_path, token):
    result = push(
        checkpoint, folder, "--namespace", "me", "--debug", HF_ENDPOINT=hub.url, HF_TOKEN=token, HF_HOME=str(tmp_path)
    )
    assert result.returncode == 4
    assert "token" in result.stderr
    assert token not in result.stdout + result.stderr
    assert hub.repositories == {}


def test_a_signature_on_the_hub_that_holds_is_kept(checkpoint, folder, hub, tmp_path):
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    for name in ("mine", "theirs"):
        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(pem)
    for output in ("first", "second"):
        shutil.copytree(folder, tmp_path / output)
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path)}

    def commits(output: str, key: str) -> tuple[int, bytes]:
        """How many there are after publishing from a folder, and the signature that the last one holds."""
        result = push(checkpoint, tmp_path / output, "--sign-key", tmp_path / f"{key}.pem", **environment)
        assert result.returncode == 0, result.stderr
        repository = hub.repositories["me/BiT-R8x0.5"]
        return len(repository.history()), repository.tree()["model.sig"].content

    count, signature = commits("first", "mine")
    assert commits("second", "mine") == (count, signature)
    card = hub.repositories["me/BiT-R8x0.5"].tree()["README.md"].content
    assert card == (tmp_path / "first" / "README.md").read_bytes(), "the card that was signed"
    assert (tmp_path / "second" / "model.sig").read_bytes() != signature
    after, other = commits("second", "theirs")
    assert after == count + 1
    assert other == (tmp_path / "second" / "model.sig").read_bytes()
