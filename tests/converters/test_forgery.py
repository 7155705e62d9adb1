"""Reports and folders that were made to agree with each other, against the checkpoint that they claim to be of."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converters.auditing.report_check import Check, check
from converters.cli.commands import verify
from converters.errors import ParityError
from converters.sources import open_checkpoint
from tests.checkpoints import make_checkpoint
from tests.command_line import audited, converted, refused, run
from verify.report.parity import content_digest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("forgery") / "tiny.npz"
    np.savez(path, **make_checkpoint((1, 1), 32, 4, mids=(32, 64)))
    return path


@pytest.fixture(scope="module")
def honest(checkpoint):
    converted(checkpoint, checkpoint.parent / "folder")
    return checkpoint.parent / "folder"


@pytest.fixture
def folder(honest, tmp_path):
    shutil.copytree(honest, tmp_path / "folder")
    return tmp_path / "folder"


def rewrite_report(folder: Path, edit=lambda content: None) -> None:
    """The report, edited, with every digest in it and in the provenance as files and tensors of the folder now are."""
    content = json.loads((folder / "parity.json").read_text())
    edit(content)
    for name in content["files"]:
        content["files"][name] = sha256((folder / name).read_bytes()).hexdigest()
    stored = load_file(folder / "model.safetensors")
    for weight in content["weights"]:
        weight["sha256"] = sha256(stored[weight["name"]].tobytes()).hexdigest()
    content["digest"] = content_digest(content)
    (folder / "parity.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    provenance = json.loads((folder / "provenance.json").read_text())
    for subject in provenance["subject"]:
        subject["digest"]["sha256"] = content["files"][subject["name"]]
    (folder / "provenance.json").write_text(json.dumps(provenance))


def rewrite_weights(folder: Path, name: str, change) -> None:
    stored = load_file(folder / "model.safetensors")
    stored[name] = np.ascontiguousarray(change(stored[name]))
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def reversed_head(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value[::-1].copy() if name.startswith("classifier") else value for name, value in stored.items()}


def problem(folder: Path, checkpoint: Path, alone: bool = False) -> str:
    """What the check against the checkpoint has to say; ``alone``, of the report without its folder."""
    parity = folder / "parity.json"
    if alone:
        parity = folder.parent / "alone.json"
        shutil.copy(folder / "parity.json", parity)
    with open_checkpoint(checkpoint) as source, pytest.raises(ParityError) as raised:
        check(parity, None, source)
    return str(raised.value)


def one_bit(values: np.ndarray) -> np.ndarray:
    bits = values.copy()
    bits.view(np.uint32).reshape(-1)[-1] ^= 1
    return bits


FORGERIES = {"reversed": lambda values: values[::-1], "negated": np.negative, "one bit": one_bit}


@pytest.mark.slow
@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_every_tensor_that_was_forged_with_its_digests_is_named(honest, checkpoint, tmp_path, forge):
    for index, name in enumerate(load_file(honest / "model.safetensors")):
        folder = tmp_path / str(index) / "folder"
        shutil.copytree(honest, folder)
        rewrite_weights(folder, name, forge)
        rewrite_report(folder)
        assert check(folder / "parity.json", None).report.passed  # the two agree with each other
        assert name in problem(folder, checkpoint)
        assert f"{name} is not recorded as what the checkpoint gives" in problem(folder, checkpoint, alone=True)


def same_bytes_in_another_shape(folder: Path) -> str:
    rewrite_weights(folder, "classifier.1.weight", lambda values: values.reshape(values.shape[::-1]))
    return "classifier.1.weight has shape (256, 4), not (4, 256)"


def two_tensors_swapped(folder: Path) -> str:
    stored = load_file(folder / "model.safetensors")
    one, other = (f"bit.encoder.stages.0.layers.0.norm{n}.weight" for n in (2, 3))
    rewrite_weights(folder, one, lambda _: stored[other])
    rewrite_weights(folder, other, lambda _: stored[one])
    return one


def a_tensor_more(folder: Path) -> str:
    stored = load_file(folder / "model.safetensors") | {"more": np.zeros(1, np.float32)}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return "parameter more is not filled"


def another_epsilon(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"weight_standardization_eps": 1e-6}))
    return "config.json weight_standardization_eps is"


def other_groups(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_groups": 16}))
    return "config.json num_groups is"


def other_colours(folder: Path) -> str:
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(config | {"image_mean": [0.4, 0.5, 0.5]}))
    return "preprocessor_config.json image_mean is"


@pytest.mark.parametrize(
    "forge",
    [same_bytes_in_another_shape, two_tensors_swapped, a_tensor_more, another_epsilon, other_groups, other_colours],
)
def test_a_folder_that_was_forged_with_its_report_is_found(folder, checkpoint, forge):
    said = forge(folder)
    rewrite_report(folder)
    assert said in problem(folder, checkpoint)
    assert "holds something else" in refused(2, "--checkpoint", checkpoint, "--output", folder, "--quiet")


def set_to(*path):
    *way, last, value = path

    def edit(content):
        for key in way:
            content = content[key]
        content[last] = value

    return edit


def drop_layer(content):
    del content["layers"][1]


def drop_tensor(content):
    del content["weights"][3]
    for count in ("source", "used", "target", "filled", "bit_exact"):
        content["tensors"][count] -= 1
    content["reason"] = content["reason"].replace("25 stored", "24 stored")


REPORTS = {
    "another padding": (set_to("pool_padding", "-inf"), "pool padding -inf"),
    "another layout": (set_to("layout", "timm"), "the folder is transformers"),
    "another exactness": (set_to("exact", "logits"), "the folder is transformers, float32, bits"),
    "no such layout": (set_to("layout", "mine"), "which is no kind of folder"),
    "a layer less": (drop_layer, "layers are not those of the checkpoint's network"),
    "a tensor less": (drop_tensor, "the report counts 24 source tensors, the checkpoint has 25"),
    "another image": (set_to("images", 0, "height", 225), "images are not those that every audit has"),
    "another format": (set_to("source", "format", "h5"), "a checkpoint in 'h5', this one is npz"),
    "another source tensor": (set_to("weights", 3, "source", "resnet/x"), "is not made from resnet/x"),
}


@pytest.mark.parametrize(("edit", "said"), REPORTS.values(), ids=REPORTS)
def test_a_report_that_is_not_of_this_checkpoint_is_found(folder, checkpoint, edit, said):
    rewrite_report(folder, edit)
    assert said in problem(folder, checkpoint)
    assert "holds something else" in refused(2, "--checkpoint", checkpoint, "--output", folder, "--quiet")


def leaves(content, way=()):
    """Every number of a report, by the keys and indices that lead to it."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from leaves(value, (*way, key))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*way, key)


UNREPEATED = {("layers", "max_abs_error"), ("layers", "floor"), ("readers", "max_abs_error"), ("readers", "ratio")}
"""Figures that a report has once: only an audit measures them again. No verdict follows from them."""


@pytest.mark.slow
def test_a_number_that_was_edited_is_found_wherever_something_depends_on_it(folder, checkpoint):
    """Each is made ten times as large, and a thousand more, with the digest of the report made to fit."""
    text = (folder / "parity.json").read_text()
    missed = set()
    for way in leaves(json.loads(text)):
        content = json.loads(text)
        inner = content
        for key in way[:-1]:
            inner = inner[key]
        inner[way[-1]] = inner[way[-1]] * 10 + 1000
        content["digest"] = content_digest(content)
        (folder / "parity.json").write_text(json.dumps(content))
        with open_checkpoint(checkpoint) as source, suppress(ParityError):
            check(folder / "parity.json", None)
            check(folder / "parity.json", None, source)
            missed.add(tuple(key for key in way if isinstance(key, str)))
    assert missed <= UNREPEATED


def test_without_the_checkpoint_a_check_says_what_it_proves(folder, checkpoint):
    alone = run("--check", folder / "parity.json", command=verify)
    assert "This proves only that the report agrees with itself and with the files beside it" in alone.stdout
    content = json.loads(run("--check", folder / "parity.json", "--json", "--quiet", command=verify).stdout)
    assert content["checked"] == {
        "against_source": False,
        "files": 3,
        "tensors": 25,
        "proves": "only that the report agrees with itself and with the files beside it; "
        "--against SOURCE holds it against the checkpoint",
    }
    whole = run("--check", folder / "parity.json", "--against", checkpoint, "--json", "--quiet", command=verify)
    assert json.loads(whole.stdout)["checked"]["against_source"] is True
    assert "the checkpoint" in run("--check", folder / "parity.json", "--against", checkpoint, command=verify).stdout


def test_a_forged_folder_is_1_for_a_check_and_neither_published_nor_said_to_be_there(folder, checkpoint, tmp_path):
    save_file(
        reversed_head(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"}
    )
    rewrite_report(folder)
    said = refused(1, "--check", folder / "parity.json", "--against", checkpoint, "--quiet", command=verify)
    assert "classifier.1.weight" in said
    options = ("--push", "--hub", tmp_path / "hub", "--repo-id", "me/tiny", "--quiet")
    assert "classifier.1.weight" in refused(2, "--checkpoint", checkpoint, "--output", folder, *options)
    assert not (tmp_path / "hub").exists()


def test_an_audit_names_a_report_in_the_folder_that_was_edited(folder, checkpoint, tmp_path):
    rewrite_report(folder, set_to("floor", 1e-9))
    report = audited(folder, checkpoint, tmp_path / "report")
    (fault,) = report["faults"]
    assert (fault["kind"], fault["place"]) == ("forged report", "parity.json figures")
    assert "the floor of logits is 1e-09" in fault["detail"]


@pytest.mark.parametrize("name", ["README.md", "config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_held_folder_whose_files_are_others_is_something_else(folder, checkpoint, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1] + b"~")
    said = refused(2, "--checkpoint", checkpoint, "--output", folder, "--quiet")
    assert "holds something else: " in said
    assert "Replace it with --force" in said
    path.unlink()
    assert "holds something else" in refused(2, "--checkpoint", checkpoint, "--output", folder, "--quiet")


def test_a_held_folder_with_a_file_that_a_loader_follows_is_something_else_until_forced(folder, checkpoint):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "elsewhere"}')
    said = refused(2, "--checkpoint", checkpoint, "--output", folder, "--quiet")
    assert "holds something else: adapter_config.json" in said
    assert run("--checkpoint", checkpoint, "--output", folder, "--quiet", "--force").exit_code == 0
    assert not (folder / "adapter_config.json").exists()


def test_a_file_of_a_name_that_none_can_have_is_missing(folder):
    content = json.loads((folder / "parity.json").read_text())
    content["files"] = {"x" * 300: "ab" * 32, **content["files"]}
    content["digest"] = content_digest(content)
    (folder / "parity.json").write_text(json.dumps(content))
    with pytest.raises(ParityError, match=f"{'x' * 300} is missing"):
        check(folder / "parity.json", None)


@pytest.mark.parametrize(
    ("files", "what"), [(1, ", 1 file and 306 tensors"), (4, ", 4 files and 306 tensors"), (0, "")]
)
def test_what_a_report_was_held_against_is_counted(honest, files, what):
    report = check(honest / "parity.json", None).report
    assert Check(report, files, 306, False).what == "figures and digest" + what
