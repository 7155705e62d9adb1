"""The command lines as a user meets them: exit status, what is said, what is left on disk."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file

from converters import api
from converters.cli import summary
from converters.cli.commands import convert, verify
from converters.cli.progress import Lines
from tests.checkpoints import make_checkpoint
from tests.command_line import refused

FILES = [
    *("README.md", "config.json", "model.safetensors", "parity.json", "preprocessor_config.json", "provenance.json"),
]


def run(*arguments: object, command=convert) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def said(result: Result, status: int) -> str:
    """What a failed command says: one or two lines on stderr, nothing on stdout."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert 1 <= len(result.stderr.splitlines()) <= 2, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def save(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    np.savez(path, **tensors)
    return path


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return make_checkpoint((1, 1), 32, 3, seed=5, kernel_std=1e-3, mids=(32, 64))


@pytest.fixture(scope="module")
def checkpoint(tensors, tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("source") / "tiny.npz", tensors)


@pytest.fixture(scope="module")
def converted(checkpoint, tmp_path_factory) -> Path:
    """A finished folder; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("converted") / "model"
    assert run("--checkpoint", checkpoint, "--output", folder).exit_code == 0
    return folder


# Before anything is done


def test_help_and_list_import_nothing_heavy():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom converters.cli.commands import convert, verify\n"
        "for command, option in ((convert, '--help'), (verify, '--help'), (convert, '--list')):\n"
        "    assert CliRunner().invoke(command, [option]).exit_code == 0\n"
        "heavy = {'numpy', 'torch', 'tensorflow', 'transformers', 'huggingface_hub', 'h5py', 'matplotlib', 'httpx'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [convert, verify], ids=lambda command: command.name)
def test_version_is_the_releases(command):
    assert run("--version", command=command).stdout == f"{command.name} {version('bit-convert')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give --variant NAME"),
        (["--bogus"], "No such option"),
        (["--variant", "BiT-M-R51x1"], "BiT-M-R50x1"),
        (["--variant", "BiT-M-*", "--checkpoint", "x.npz"], "--checkpoint is for one"),
        (["--variant", "BiT-M-*", "--repo-id", "a/b", "--push"], "--repo-id is for one"),
        (["--variant", "BiT-digits", "--push", "--no-verify"], "Leave out --no-verify or --push"),
        (["--variant", "BiT-digits", "--tag", "v1"], "--tag is for publishing. Add --push"),
        (["--variant", "BiT-digits", "--push", "--repo-id", "a/b", "--namespace", "c"], "Leave out --namespace"),
        (["--variant", "BiT-digits", "--push", "--hub", "h", "--create-pr"], "a folder hub has no --create-pr"),
        (["--variant", "BiT-digits", "--layout", "keras"], "'keras' is not"),
        (["--variant", "BiT-digits", "--images", "nowhere"], "nowhere"),
        (["--variant", "BiT-digits", "--exact", "logits", "--pool-padding", "-inf"], "Leave out --pool-padding -inf"),
    ],
)
def test_wrong_usage_is_2_and_says_what_to_do(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in said(run(*arguments), 2)
    assert listed(tmp_path) == []


def test_list_shows_the_variants_of_a_glob():
    lines = run("--list", "--variant", "BiT-M-R50x1*").stdout.splitlines()
    assert {line.split()[0] for line in lines} >= {"BiT-M-R50x1", "BiT-M-R50x1-ILSVRC2012"}
    content = json.loads(run("--list", "--variant", "BiT-M-R50x1", "--json").stdout)
    assert [entry["name"] for entry in content] == ["BiT-M-R50x1"]


def test_dry_run_does_nothing(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("--variant", "BiT-M-R50x1", "--push", "--hub", "hub", "--dry-run")
    assert result.exit_code == 0
    assert "BiT-M-R50x1.npz (download)" in result.stdout
    assert "write models/BiT-M-R50x1" in result.stdout
    assert "publish BiT-M-R50x1 in hub" in result.stdout
    assert "(the token’s user)/BiT-M-R50x1" in run("BiT-M-R50x1", "--push", "--dry-run").stdout
    result = run("--checkpoint", checkpoint, "--dry-run", "--json")
    plan = json.loads(result.stdout)["results"][0]["plan"]
    assert plan["architecture"] == "R8x0.5 (units 1-1, root width 32), 3 classes"
    assert plan["write"] == "models/BiT-R8x0.5"
    assert listed(tmp_path) == []


# A conversion


def test_folder_is_whole_and_reproducible(checkpoint, converted, tmp_path):
    assert listed(converted) == FILES
    assert run("--checkpoint", checkpoint, "--output", tmp_path / "again").exit_code == 0
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (converted / name).read_bytes(), name


def test_stored_values_are_the_sources(tensors, converted, checkpoint, tmp_path):
    """Names and axes are spelt out in tests/converters/test_layouts.py; here are a few through the command line."""
    assert run("--checkpoint", checkpoint, "--output", tmp_path / "logits", "--exact", "logits").exit_code == 0
    for folder, factor in ((converted, 1), (tmp_path / "logits", 10)):
        stored = load_file(folder / "model.safetensors")
        assert len(stored) == len(tensors)
        for ours, theirs, axes in (
            ("bit.embedder.convolution.weight", "resnet/root_block/standardized_conv2d/kernel", (3, 2, 0, 1)),
            (
                "bit.encoder.stages.1.layers.0.downsample.conv.weight",
                "resnet/block2/unit01/a/proj/standardized_conv2d/kernel",
                (3, 2, 0, 1),
            ),
        ):
            expected = tensors[theirs].transpose(axes) * np.float32(factor)
            np.testing.assert_array_equal(stored[ours], expected)
        np.testing.assert_array_equal(stored["classifier.1.weight"], tensors["resnet/head/conv2d/kernel"][0, 0].T)


def test_files_say_what_they_are(converted):
    config = json.loads((converted / "config.json").read_text())
    assert config["weight_standardization_eps"] == 1e-10
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    parity = json.loads((converted / "parity.json").read_text())
    assert parity["verdict"] == "passed"
    assert parity["source"]["file"] == "tiny.npz"
    assert set(parity["files"]) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    card = (converted / "README.md").read_text()
    assert card.startswith("---\n")
    assert "license: apache-2.0" in card
    assert "`LABEL_n`" in card
    assert "--exact logits" in card
    text = "".join((converted / name).read_text() for name in FILES if name != "model.safetensors")
    assert str(converted.parent) not in text
    assert "/tmp" not in text


def test_json_is_one_strict_document(checkpoint, tmp_path):
    result = run("--checkpoint", checkpoint, "--output", tmp_path / "model", "--json", "--quiet")
    content = json.loads(result.stdout, parse_constant=lambda token: pytest.fail(token))
    assert content["exit_status"] == 0
    (entry,) = content["results"]
    assert entry["report"]["passed"] is True
    assert entry["folder"] == str(tmp_path / "model")
    assert result.stderr == ""


def test_summary_names_what_matters(checkpoint, tmp_path):
    text = run("--checkpoint", checkpoint, "--output", tmp_path / "model").stdout
    for fact in ("R8x0.5", "25 of 25 used", "exactness: bits", "transformers, timm", "seconds", "use_config_epsilon"):
        assert fact in text, fact
    last = text.splitlines()[-1]
    assert last.startswith("passed: ")
    assert last.endswith("× float32 rounding (limit 2.5 ×)")
    assert not {"failed", "inconclusive"} & {*text.replace(":", " ").split()}


@pytest.mark.slow
@pytest.mark.parametrize("exact", ["bits", "logits"])
def test_snippet_of_the_summary_runs_without_the_stock_libraries(exact, checkpoint, tmp_path, monkeypatch):
    text = run("--checkpoint", checkpoint, "--output", tmp_path / "model", "--exact", exact).stdout
    for library in ("transformers", "timm"):
        monkeypatch.setitem(sys.modules, library, None)
    names = {}
    exec("\n".join(line for line in text.splitlines() if "BitFor" in line or "BitImage" in line), names)
    image = np.zeros((40, 30, 3), np.uint8)
    assert names["model"](**names["processor"](image, return_tensors="pt")).logits.shape[0] == 1


def test_result_that_is_there_already_is_said_and_kept(checkpoint, converted):
    before = {path.name: path.stat().st_mtime_ns for path in converted.iterdir()}
    result = run("--checkpoint", checkpoint, "--output", converted)
    assert result.exit_code == 0
    assert re.search(r"│ seconds +│ \d+\.\d, to know that it was already there +│", result.stdout)
    assert {path.name: path.stat().st_mtime_ns for path in converted.iterdir()} == before
    conversion = api.convert(checkpoint=checkpoint, output=converted)
    (line,) = summary.render(conversion, None, "0.1.0", short=True).splitlines()
    assert re.search(r": was already there \(known in \d+\.\d s\), passed, ", line)


def test_anything_else_there_is_2_unless_forced(checkpoint, converted, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(converted, place)
    assert "--force" in said(run("--checkpoint", checkpoint, "--output", place, "--exact", "logits"), 2)
    (place / "config.json").write_text("{}")
    assert "--force" in said(run("--checkpoint", checkpoint, "--output", place), 2)
    assert (place / "config.json").read_text() == "{}"
    assert run("--checkpoint", checkpoint, "--output", place, "--force").exit_code == 0
    assert (place / "config.json").read_bytes() == (converted / "config.json").read_bytes()
    assert listed(tmp_path) == ["model"]


def test_force_never_replaces_the_working_folder(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("")
    monkeypatch.chdir(tmp_path)
    assert "working" in said(run("--checkpoint", checkpoint, "--output", ".", "--force"), 2)
    assert listed(tmp_path) == ["precious"]


def test_unverified_folder_says_so(checkpoint, tmp_path):
    for state in ("not verified: --no-verify", "already there"):
        result = run("--checkpoint", checkpoint, "--output", tmp_path / "model", "--no-verify")
        assert result.exit_code == 0
        assert state in result.stdout
    assert listed(tmp_path / "model") == [name for name in FILES if name != "parity.json"]
    assert "--no-verify" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.slow
def test_photographs_are_verified_beside_the_default_images(checkpoint, tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    gradient = np.arange(48 * 40 * 3, dtype=np.uint32).reshape(48, 40, 3) % 251
    Image.fromarray(gradient.astype(np.uint8)).save(tmp_path / "images" / "photo.png")
    result = run("--checkpoint", checkpoint, "--output", tmp_path / "model", "--images", tmp_path / "images", "--json")
    images = json.loads(result.stdout)["results"][0]["report"]["images"]
    assert [(image["height"], image["width"]) for image in images] == [(64, 64), (64, 64), (480, 480)]


@pytest.mark.slow
def test_many_variants_each_get_a_folder_and_a_failure_does_not_stop_the_rest(tmp_path, monkeypatch):
    """BiT-[dM]*-R101x1 and BiT-digits: the released file cannot be had offline, the embedded one can."""
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    result = run("--variant", "BiT-[Md][-i]*[1g]*", "--offline", "--json", "--output", tmp_path / "models")
    content = json.loads(result.stdout)
    states = {entry["name"]: entry["exit_status"] for entry in content["results"]}
    assert states["BiT-digits"] == 0
    assert states["BiT-M-R101x1"] == 4
    assert result.exit_code == content["exit_status"] == 4
    assert listed(tmp_path / "models") == ["BiT-digits", "release.html", "release.json"]


# What cannot be converted


def without(name):
    return lambda t: {key: value for key, value in t.items() if key != name}


def replaced(name, change):
    return lambda t: {**t, name: change(t[name])}


GAMMA, KERNEL = "resnet/group_norm/gamma", "resnet/block2/unit01/b/standardized_conv2d/kernel"
BROKEN = {
    "missing tensor": (without(GAMMA), GAMMA),
    "extra tensor": (lambda t: {**t, "resnet/extra": np.zeros(1, np.float32)}, "resnet/extra"),
    "misshapen tensor": (replaced(KERNEL, lambda k: k[..., :-1]), KERNEL),
    "NaN": (replaced(KERNEL, lambda k: k * np.float32(np.nan)), KERNEL),
    "integers": (replaced(GAMMA, lambda g: g.astype(np.int32)), GAMMA),
    "objects": (replaced(GAMMA, lambda g: g.astype(object)), GAMMA),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_checkpoint_is_3_and_leaves_nothing(tensors, tmp_path, fault):
    change, name = BROKEN[fault]
    path = save(tmp_path / "broken.npz", change(dict(tensors)))
    message = said(run("--checkpoint", path, "--output", tmp_path / "model"), 3)
    assert str(path) in message
    assert name in message
    assert listed(tmp_path) == ["broken.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<html>not found</html>", b"\x80\x04pickle", b"text"])
def test_what_is_no_checkpoint_is_3(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    assert str(path) in said(run("--checkpoint", path, "--output", tmp_path / "model"), 3)
    assert listed(tmp_path) == ["broken.npz"]


def test_file_that_contradicts_the_variant_is_3_and_names_both(checkpoint, tmp_path):
    message = said(run("--checkpoint", checkpoint, "--variant", "BiT-M-R50x1", "--output", tmp_path / "model"), 3)
    assert "R8x0.5" in message
    assert "BiT-M-R50x1 is R50x1" in message
    assert listed(tmp_path) == []


UNPROVABLE = {
    "overflow": replaced(GAMMA, lambda g: g * np.float32(1e38)),
    "constant channel": replaced(KERNEL, lambda k: np.full_like(k, 0.25)),
}


@pytest.mark.parametrize("fault", UNPROVABLE)
def test_what_cannot_be_proven_is_1_and_leaves_only_the_report(tensors, tmp_path, fault, monkeypatch):
    secret = "https://me:s3cret@host/odd.npz?token=s3cret"
    monkeypatch.setattr(sys, "argv", ["bit-convert", "--checkpoint", "my odd.npz", secret, f"--checkpoint={secret}"])
    path = save(tmp_path / "odd.npz", UNPROVABLE[fault](dict(tensors)))
    hub = tmp_path / "hub"
    message = said(run("--checkpoint", path, "--output", tmp_path / "model", "--push", "--hub", hub), 1)
    assert "inconclusive" in message
    assert listed(tmp_path) == ["model.failed", "odd.npz"]
    assert listed(tmp_path / "model.failed") == ["parity.html", "parity.json"]
    assert f"See {tmp_path / 'model.failed' / 'parity.html'}." in message
    page = (tmp_path / "model.failed" / "parity.html").read_text()
    assert "? Inconclusive" in page
    assert "bit-convert --checkpoint &#39;my odd.npz&#39; &#39;https://host/odd.npz?…&#39;" in page
    assert "s3cret" not in page
    assert json.loads((tmp_path / "model.failed" / "parity.json").read_text())["passed"] is False


def test_traceback_only_with_debug(tmp_path):
    result = run("--checkpoint", tmp_path / "nothing.npz", "--debug")
    assert result.exit_code == 3
    assert "Traceback" in result.stderr


# Interruption


def folder_state(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir() if not path.name.startswith("."))


@pytest.mark.slow
def test_interrupted_at_any_moment_leaves_nothing_that_looks_finished(checkpoint, converted, tmp_path):
    """Ctrl-C after more and more of the run; the next run is whole."""
    command = [sys.executable, "-c", "from converters.cli import convert; convert()", "--checkpoint", str(checkpoint)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    statuses = []
    for tenths in range(2, 60, 11):
        output = tmp_path / f"model{tenths}"
        process = subprocess.Popen(
            [*command, "--output", str(output)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        time.sleep(tenths / 10)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        statuses.append(process.returncode)
        if process.returncode == 0:
            assert listed(output) == FILES
            break
        assert not output.exists() or listed(output) == FILES
        if process.returncode == 130:
            assert b"Traceback" not in errors
            assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    assert statuses.count(130) >= 2
    last = tmp_path / "model2"
    assert run("--checkpoint", checkpoint, "--output", last).exit_code == 0
    for name in FILES:
        assert (last / name).read_bytes() == (converted / name).read_bytes()


@pytest.mark.slow
def test_killed_run_is_cleaned_up_by_the_next(checkpoint, tmp_path):
    command = [sys.executable, "-c", "from converters.cli import convert; convert()", "--checkpoint", str(checkpoint)]
    with subprocess.Popen([*command, "--output", str(tmp_path / "model")], stdout=subprocess.DEVNULL) as process:
        while not any(path.name.startswith(".model.partial-") for path in tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert folder_state(tmp_path) == []
    assert listed(tmp_path) != []
    assert run("--checkpoint", checkpoint, "--output", tmp_path / "model").exit_code == 0
    assert listed(tmp_path) == ["model"]


# bit-verify


def test_audit_of_our_folder_passes(checkpoint, converted, tmp_path):
    result = run(converted, "--against", checkpoint, "--report", tmp_path / "parity", command=verify)
    assert result.exit_code == 0, result.output
    parity = json.loads((tmp_path / "parity" / "parity.json").read_text())
    assert [(reader["name"], reader["verdict"]) for reader in parity["readers"]] == [
        ("bit_ref", "passed"),
        ("transformers", "passed"),
    ]
    assert "passed" in result.stdout
    assert "exact except for the library's epsilon (1e-8)" in parity["reason"]


def test_audit_of_a_changed_folder_fails_and_names_the_tensor(checkpoint, converted, tmp_path):
    from safetensors.numpy import save_file

    folder = tmp_path / "changed"
    shutil.copytree(converted, folder)
    stored = load_file(folder / "model.safetensors")
    name = "bit.encoder.stages.1.layers.0.norm2.bias"
    stored[name][3] = np.nextafter(stored[name][3], np.float32(9))
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    result = run(folder, "--against", checkpoint, "--report", tmp_path / "parity", "--json", command=verify)
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["verdict"] == "failed"
    assert f"{name} differs at [3]" in report["reason"]


def test_audit_of_a_stock_port_fails_by_its_epsilon(checkpoint, converted, tmp_path):
    """A folder as transformers' own script leaves it: the source's kernels, and no epsilon declared."""
    folder = tmp_path / "port"
    shutil.copytree(converted, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k not in ("weight_standardization_eps", "exact")})
    )
    result = run(folder, "--against", checkpoint, "--report", tmp_path / "parity", "--json", command=verify)
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["readers"][0]["name"] == "transformers"
    assert report["readers"][0]["exceeds_limit_at"] == "root"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["nowhere", "--against", "x.npz"], 2), ([".", "--against", "BiT-nothing"], 2), (["."], 2)],
)
def test_audit_of_nothing_is_wrong_usage(arguments, status, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said(run(*arguments, command=verify), status)


def test_audit_of_a_folder_without_weights_is_3(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert "model.safetensors" in said(run(tmp_path, "--against", checkpoint, command=verify), 3)


# bit-verify --check, and what an audit can be asked for


def test_report_of_a_conversion_holds_and_an_edited_one_does_not(checkpoint, converted, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(converted, folder)
    result = run("--check", folder / "parity.json", command=verify)
    assert result.exit_code == 0, result.output
    assert "holds (figures and digest, 3 files and 25 tensors); passed" in result.stdout
    result = run("--check", folder / "parity.json", "--against", checkpoint, "--json", command=verify)
    assert json.loads(result.stdout)["passed"] is True

    text = (folder / "parity.json").read_text()
    (folder / "parity.json").write_text(text.replace('"release": "', '"release": "9'))
    assert "was edited" in said(run("--check", folder / "parity.json", command=verify), 1)
    (folder / "parity.json").write_text(text)
    other = save(tmp_path / "other.npz", make_checkpoint((1, 1), 32, 3, seed=6, mids=(32, 64)))
    message = said(run("--check", folder / "parity.json", "--against", other, "--quiet", command=verify), 1)
    assert "the checkpoint is another" in message


def test_report_beside_other_files_does_not_hold(converted, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(converted, folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    message = said(run("--check", folder / "parity.json", command=verify), 1)
    assert "model.safetensors is another file" in message
    assert "classifier.1.bias holds other values" in message
    alone = tmp_path / "parity.json"
    alone.write_bytes((folder / "parity.json").read_bytes())
    assert run("--check", alone, command=verify).exit_code == 0
    assert run(folder, "--check", alone, command=verify).exit_code == 1


def test_check_of_a_failed_report_is_1_and_says_that_it_holds(checkpoint, converted, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(converted, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_groups": 16}))
    result = run(folder, "--against", checkpoint, "--report", tmp_path / "p", "--json", command=verify)
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert [fault["place"] for fault in report["faults"]][:2] == [
        "config.json num_groups",
        "parity.json sha256 of config.json",
    ]
    checked = run(folder, "--check", tmp_path / "p" / "parity.json", command=verify)
    assert checked.exit_code == 1
    assert "holds (" in checked.stdout


def test_audit_leaves_a_page_beside_the_report(checkpoint, converted, tmp_path):
    options = ["--inputs", "thorough", "--oracle", "tensorflow", "--runner", "stock-arithmetic"]
    result = run(converted, "--against", checkpoint, "--report", tmp_path / "parity", *options, command=verify)
    assert result.exit_code == 0, result.output
    assert listed(tmp_path / "parity") == ["parity.html", "parity.json"]
    parity = json.loads((tmp_path / "parity" / "parity.json").read_text())
    assert parity["oracle"] == "NumPy float64 and TensorFlow float64"
    assert [reader["name"] for reader in parity["readers"]] == ["bit_ref", "bit_ref with transformers' arithmetic"]
    assert len(parity["images"]) == 8
    assert len({(image["height"], image["width"]) for image in parity["images"]}) == 3
    page = (tmp_path / "parity" / "parity.html").read_text()
    assert "✓ Passed" in page
    assert str(tmp_path) not in (tmp_path / "parity" / "parity.json").read_text()


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_runner_that_is_not_installed_leaves_nothing_to_conclude(checkpoint, converted, tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    options = ["--runner", library, "--runner", "bit_ref", "--json"]
    result = run(converted, "--against", checkpoint, "--report", tmp_path / "parity", *options, command=verify)
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["verdict"] == "inconclusive"
    remedy = f"pip install 'bit-convert[{library}]'"
    assert report["reason"] == f"{library} was not run: {library} is not installed: {remedy}"
    readers = [(reader["name"], reader["verdict"]) for reader in report["readers"]]
    assert readers == [("bit_ref", "passed"), (library, "not run")]


def test_runner_of_another_layout_is_wrong_usage(checkpoint, converted, tmp_path):
    options = ["--report", tmp_path / "parity", "--runner", "timm"]
    result = run(converted, "--against", checkpoint, *options, command=verify)
    assert result.exit_code == 2
    assert "timm does not load the transformers layout" in result.stderr


@pytest.mark.slow
def test_audit_against_a_variant_compares_labels_and_preprocessing(tmp_path):
    folder = tmp_path / "digits"
    assert run("--variant", "BiT-digits", "--output", tmp_path, "--quiet").exit_code == 0
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    command = [folder, "--against", "BiT-digits", "--report", tmp_path / "parity", "--json"]
    report = json.loads(run(*command, command=verify).stdout)
    assert report["passed"] is True
    places = {each["place"] for each in report["expectations"]}
    assert {"config.json id2label", "preprocessor_config.json pixels", "preprocessor_config.json size"} <= places
    recipe = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(recipe | {"resample": 3}))
    report = json.loads(run(*command, command=verify).stdout)
    assert report["verdict"] == "failed"
    assert report["reason"].startswith("preprocessor_config.json resample is 3, not 2")
    assert any(fault["place"] == "preprocessor_config.json pixels" for fault in report["faults"])


# What to type


def test_help_is_in_groups_with_examples_and_the_environment():
    for command, example in ((convert, "bit-convert BiT-digits"), (verify, "bit-verify models/BiT-digits --against")):
        text = run("-h", command=command).stdout
        assert text == run("--help", command=command).stdout
        titles = ["Source:", "Output:", "Verification:", "Run:", "Examples:", "Environment:", "Exit status:", "Guide:"]
        at = [text.index(title) for title in titles]
        assert at == sorted(at)
        assert example in text
        for variable in ("BIT_CONVERT_CACHE", "HF_TOKEN", "BIT_CONVERT_MIRROR"):
            assert variable in text
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert option in text
        assert run("-V", command=command).stdout == f"{command.name} {version('bit-convert')}\n"


def test_examples_of_the_help_are_right_usage():
    for command in (convert, verify):
        for line in command.examples:
            words = shlex.split(line)
            assert words[0] == command.name
            with command.make_context(words[0], words[1:], resilient_parsing=True) as context:
                assert context.params


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["BiT-M-R50x1"], "BiT-M-R50x1"),
        (["BiT-M-R50x[13]"], "BiT-M-R50x1"),
        (["hf://me/model"], "hf://me/model"),
        (["./BiT-digits"], "./BiT-digits"),
        (["BiT-digits"], "BiT-digits"),
        (["prefix", "--variant", "BiT-M-R50x1"], "BiT-M-R50x1"),
    ],
)
def test_a_bare_word_is_a_variant_or_else_a_checkpoint(words, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("BiT-digits", "prefix.index"):
        (tmp_path / file).write_text("no checkpoint")
    content = json.loads(run(*words, "--dry-run", "--json").stdout)
    assert content["results"][0]["name"] == name
    option = "--checkpoint" if name.startswith((".", "hf")) else "--variant"
    if words == [name]:
        assert json.loads(run(option, name, "--dry-run", "--json").stdout) == content


def test_a_bare_word_that_is_nothing_and_one_too_many_are_wrong_usage():
    assert "models/none.npz: no such file; no released checkpoint" in said(run("models/none.npz"), 2)
    assert "Leave one out" in said(run("BiT-digits", "--variant", "BiT-M-R50x1"), 2)
    assert "Leave one out" in said(run("hf://a/b", "--checkpoint", "x.npz"), 2)
    assert "--quiet and --verbose" in said(run("BiT-digits", "-q", "-v"), 2)
    for words in (["google/bit-50"], ["--variant", "google/bit-50"]):
        assert "hf://google/bit-50" in said(run(*words), 2)


def test_list_takes_a_bare_word():
    assert run("--list", "BiT-d*").stdout == run("--list", "--variant", "BiT-d*").stdout


def test_bit_verify_asks_for_the_checkpoint_and_proposes_what_the_card_names(tmp_path):
    assert run("BiT-digits", "--output", tmp_path / "a b", "--no-verify").exit_code == 0
    folder = tmp_path / "a b" / "BiT-digits"
    message = said(run(folder, command=verify), 2)
    assert message.splitlines()[1] == f"bit-verify '{folder}' --against BiT-digits"
    (folder / "README.md").write_text("bit-verify . --against 'no variant'\n")
    assert "--against" in said(run(folder, command=verify), 2)
    assert "no variant" not in said(run(folder, command=verify), 2)
    assert "--against" in said(run("hf://me/model", command=verify), 2)


def test_verbose_tells_each_step_and_its_seconds(checkpoint, tmp_path):
    lines = run("--checkpoint", checkpoint, "--output", tmp_path / "model", "-v").stderr.splitlines()
    assert 3 < len(lines) < 15
    assert all(re.fullmatch(r".+: .+: \d+\.\d s", line) for line in lines), lines
    assert any("verifying" in line for line in lines)


def test_without_a_terminal_what_takes_long_is_told_in_lines(capsys, monkeypatch):
    monkeypatch.setattr("converters.cli.progress.FIRST", 2.0)
    now = [0.0]
    lines = Lines("BiT-M-R152x4", verbose=False, now=lambda: now[0])
    for second in range(101):
        now[0] = float(second)
        lines("downloading", 10**7 * second, 4 * 10**9)
    lines("verifying", 1, 4)
    printed = capsys.readouterr().err.splitlines()
    assert printed[0] == "BiT-M-R152x4: downloading, 20.0 MB of 4.0 GB, 10.0 MB/s, 6:38 left"
    assert len(printed) == 5
    assert printed[-1] == "BiT-M-R152x4: verifying, 1 of 4"


def test_the_module_is_the_command():
    result = subprocess.run([sys.executable, "-m", "converters", "-V"], capture_output=True, text=True, check=True)
    assert result.stdout == f"bit-convert {version('bit-convert')}\n"


@pytest.mark.parametrize(("shell", "file"), [("bash", "bash-completion/completions"), ("fish", ""), ("zsh", ".zfunc")])
def test_completion_is_installed_for_the_shell_and_knows_variants(shell, file, tmp_path, monkeypatch):
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    for command in (convert, verify):
        result = run("--install-completion", command=command)
        assert result.exit_code == 0, result.stderr
        place = Path(result.stdout.partition(" written")[0])
        assert place.is_relative_to(tmp_path / file)
        assert f"_{command.name.upper().replace('-', '_')}_COMPLETE={shell}_complete" in place.read_text()
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert "completion is for bash, zsh, fish" in said(run("--install-completion"), 2)


@pytest.mark.parametrize(
    "words", ["bit-convert BiT-dig", "bit-convert --variant BiT-dig", "bit-verify x --against BiT-dig"]
)
def test_variants_are_completed(words):
    name = words.split()[0]
    command = "convert" if name == "bit-convert" else "verify"
    result = subprocess.run(
        [sys.executable, "-c", f"from converters.cli import {command}; {command}(prog_name={name!r})"],
        env={
            **os.environ,
            f"_{name.upper().replace('-', '_')}_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
    )
    assert result.stdout == "plain,BiT-digits\n", result.stderr


def test_an_audit_ends_with_report_and_verdict_and_says_what_it_replaces(converted, checkpoint, tmp_path):
    words = (converted, "--against", checkpoint, "--report", tmp_path / "parity", "--runner", "bit_ref")
    page = tmp_path / "parity" / "parity.html"
    for replaced in ("", f", in place of one that said passed, against {checkpoint.name}"):
        *_, report, verdict = run(*words, command=verify).stdout.splitlines()
        assert report == f"report: {page}{replaced}"
        assert verdict.startswith("passed: Identical within rounding")
    (tmp_path / "parity" / "parity.json").write_text("none")
    assert run(*words, command=verify).stdout.splitlines()[-2].endswith(", in place of one that cannot be read")


def test_the_last_line_of_a_failed_audit_is_its_worst_fault_which_is_said_once(converted, checkpoint, tmp_path):
    from safetensors.numpy import save_file

    folder = tmp_path / "model"
    shutil.copytree(converted, folder)
    stored = load_file(folder / "model.safetensors")
    name = max(name for name in stored if name.endswith("norm1.weight"))
    save_file(stored | {name: stored[name] * 2}, folder / "model.safetensors", metadata={"format": "pt"})
    result = run(
        folder, "--against", checkpoint, "--report", tmp_path / "parity", "--runner", "bit_ref", command=verify
    )
    assert result.exit_code == 1
    last = result.stdout.splitlines()[-1]
    assert last.startswith(f"failed: {name}: scaled values")
    assert result.stdout.count("scaled values") == 1


@pytest.mark.parametrize("command", [convert, verify])
@pytest.mark.parametrize("number", ["x", "0", "-1", "1.5"])
def test_jobs_are_a_number_or_auto(command, number):
    said = refused(2, "BiT-digits", "--jobs", number, command=command)
    assert f"{number!r} is no number of processes. Give 1 or more, or auto." in said


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (convert, [""]),
        (convert, ["--variant", ""]),
        (convert, ["--checkpoint", "", "--output", "x"]),
        (convert, ["BiT-digits", "--output", ""]),
        (convert, ["BiT-digits", "--output="]),
        (convert, ["BiT-digits", "--push", "--hub", "x", "--repo-id", ""]),
        (verify, ["", "--against", "BiT-digits"]),
        (verify, [".", "--against", ""]),
        (verify, [".", "--against", "BiT-digits", "--report="]),
    ],
)
def test_an_empty_word_is_no_folder_and_no_default(command, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "is empty. Leave it out, or give it a value." in refused(2, *words, command=command)
    assert list(tmp_path.iterdir()) == []
