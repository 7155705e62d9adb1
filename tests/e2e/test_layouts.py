"""Every layout through the command line: back to Google's arrays, loaded by its own library, in shards, published."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from converters.catalogue.variants import find, variants
from converters.folder.config import timm_config
from converters.mapping.architecture import Architecture
from converters.mapping.storage import Storage
from converters.sources import open_checkpoint
from converters.writers.model import Plan
from tests.checkpoints import LARGE, make_checkpoint, npz_bytes
from tests.command_line import audited, converted, published_files, refused, run
from tests.converters.sources.writers import torch_names
from tests.hub_server import HubServer, User
from tests.processes import python

UNITS, WIDTH, MIDS, CLASSES = (2, 1), 32, (32, 64), 5
SHARDS = ("--max-shard-size", "150KB")


def save(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **tensors)
    return path


@pytest.fixture(scope="module", params=[CLASSES, None], ids=["head", "headless"])
def tensors(request) -> dict[str, np.ndarray]:
    return make_checkpoint(UNITS, WIDTH, request.param, seed=3, kernel_std=1e-2, mids=MIDS)


@pytest.fixture(scope="module")
def checkpoint(tensors, tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("source") / "tiny.npz", tensors)


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- back to Google's npz


def arrays(folder: Path) -> dict[str, np.ndarray]:
    (path,) = folder.glob("*.npz")
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("shards", [(), SHARDS], ids=["whole", "shards"])
@pytest.mark.parametrize("layout", ["transformers", "original", "npz"])
def test_the_way_back_gives_googles_arrays_bit_for_bit(checkpoint, tensors, tmp_path: Path, layout, shards) -> None:
    converted(checkpoint, tmp_path / "model", "--layout", layout, "--no-verify", *shards)
    verification = [] if shards else ["--no-verify"]
    entry = converted(tmp_path / "model", tmp_path / "back", "--layout", "npz", *verification)
    back = arrays(tmp_path / "back")
    assert list(back) == list(tensors)
    for name, value in tensors.items():
        np.testing.assert_array_equal(back[name].view(np.uint32), value.view(np.uint32), err_msg=name, strict=True)
    (path,) = (tmp_path / "back").glob("*.npz")
    classes = len(tensors["resnet/head/conv2d/bias"]) if "resnet/head/conv2d/bias" in tensors else None
    assert path.stat().st_size == npz_bytes(Architecture(UNITS, WIDTH, MIDS, classes))
    if shards:
        assert entry["report"]["verdict"] == "passed"


def test_the_way_back_from_logits_is_one_unit_in_the_last_place_and_the_card_says_so(
    checkpoint, tensors, tmp_path: Path
) -> None:
    converted(checkpoint, tmp_path / "model", "--exact", "logits", "--no-verify")
    report = converted(tmp_path / "model", tmp_path / "back", "--layout", "npz")["report"]
    assert report["verdict"] == "passed"
    off = 0
    for name, value in arrays(tmp_path / "back").items():
        assert (np.abs(value.astype(np.float64) - tensors[name]) <= np.spacing(np.abs(tensors[name]))).all(), name
        differing = np.count_nonzero(value != tensors[name])
        assert "standardized_conv2d" in name or not differing, name
        off += differing
    assert off
    card = " ".join((tmp_path / "back/README.md").read_text().split())
    assert "divided by ten again they are Google's to within one unit in the last place" in card
    converted(checkpoint, tmp_path / "bits", "--layout", "npz", "--no-verify")
    assert "divided by ten" not in (tmp_path / "bits/README.md").read_text()


def test_npz_and_original_are_for_googles_own_code(checkpoint, tmp_path: Path) -> None:
    for layout in ("npz", "original"):
        arguments = ("--checkpoint", checkpoint, "--output", tmp_path / "model", "--layout", layout)
        assert f"--layout {layout} has none" in refused(2, *arguments, "--exact", "logits")


# -- shards


@pytest.mark.slow
def test_shards_have_an_index_that_fits_and_every_reader_finds_all(checkpoint, tensors, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    report = converted(checkpoint, folder, *SHARDS)["report"]
    shards = sorted(folder.glob("*.safetensors"))
    count = len(shards)
    assert count > 2
    assert [path.name for path in shards] == [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    held = {path.name: load_file(path) for path in shards}
    assert index["weight_map"] == {name: file for file, some in held.items() for name in some}
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in tensors.values())
    for file, some in held.items():
        assert sum(value.nbytes for value in some.values()) <= 150_000 or len(some) == 1, file
    everything = {name: value for some in held.values() for name, value in some.items()}
    for name, value in torch_names(tensors, "transformers").items():
        assert everything.pop(name).tobytes() == value.tobytes(), name
    assert everything == {}
    assert set(report["files"]) == {*(path.name for path in shards), "model.safetensors.index.json", "config.json",
                                    "preprocessor_config.json"}  # fmt: skip
    audit = audited(folder, checkpoint, tmp_path / "parity")
    assert [reader["verdict"] for reader in audit["readers"]] == ["passed", "passed"]
    assert "bit_ref" in audit["readers"][0]["name"]
    converted(checkpoint, tmp_path / "logits", "--exact", "logits", *SHARDS)
    audit = audited(tmp_path / "logits", checkpoint, tmp_path / "parity")
    assert [(reader["name"], reader["verdict"]) for reader in audit["readers"]] == [
        ("transformers", "passed"), ("bit_ref", "passed")
    ]  # fmt: skip


@pytest.mark.slow
def test_a_limit_changes_what_is_there(checkpoint, tmp_path: Path) -> None:
    """Whole and in shards are different results of one source."""
    folder = tmp_path / "model"
    converted(checkpoint, folder, "--no-verify", *SHARDS)
    arguments = ("--checkpoint", checkpoint, "--output", folder)
    assert "--force" in refused(2, *arguments)
    assert run(*arguments, "--force").exit_code == 0
    assert listed(folder) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "parity.json",
        "preprocessor_config.json",
        "provenance.json",
    ]
    assert "--force" in refused(2, *arguments, *SHARDS)
    assert not converted(checkpoint, folder)["made"]


@pytest.mark.slow
def test_a_variant_s_name_changes_what_is_there(tmp_path: Path) -> None:
    """Its labels and its way to prepare images: the same checkpoint without the name is another result."""
    (variant,) = find("BiT-digits")
    arguments = ("--checkpoint", variant.file, "--output", tmp_path / "model")
    assert run(*arguments).exit_code == 0
    assert "--force" in refused(2, *arguments, "--variant", "BiT-digits")
    assert "already there" in run(*arguments).stdout


def test_a_shard_that_is_missing_or_changed_is_not_passed(checkpoint, tmp_path: Path) -> None:
    converted(checkpoint, tmp_path / "model", "--no-verify", *SHARDS)
    shard = sorted((tmp_path / "model").glob("*.safetensors"))[1]
    stored = load_file(shard)
    name = next(name for name in stored if "conv" in name)
    save_file({**stored, name: stored[name] * np.float32(2)}, shard, {"format": "pt"})
    assert name in audited(tmp_path / "model", checkpoint, tmp_path / "parity")["reason"]
    shard.unlink()
    from converters.cli.commands import verify

    assert shard.name in refused(3, tmp_path / "model", "--against", checkpoint, command=verify)


@pytest.mark.slow
def test_all_shards_are_published_and_stale_ones_go(checkpoint, tmp_path: Path) -> None:
    token = "hf_" + "SecretSecretSecret"
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom converters.cli.commands import convert\n"
        "_, checkpoint, output = sys.argv\n"
        "for more in (['--max-shard-size', '150KB'], ['--force']):\n"
        "    words = ['--checkpoint', checkpoint, '--output', output, '--push', '--repo-id', 'me/bit', *more]\n"
        "    result = CliRunner().invoke(convert, words)\n"
        "    assert result.exit_code == 0, result.stderr\n"
    )
    with HubServer({token: User("me")}) as hub:
        hub.add("me/bit", files={"eval.md": b"someone else's"})
        environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.url, "HF_TOKEN": token}
        environment["HF_HOME"] = str(tmp_path)
        result = python(code, checkpoint, tmp_path / "model", environment=environment)
        assert result.returncode == 0, result.stderr
        repository = hub.repositories["me/bit"]
        whole, shards = (set(commit.tree) for commit in repository.history()[:2])
        tree = repository.tree()
    assert {"model.safetensors.index.json", "eval.md"} <= shards
    assert len([name for name in shards if name.endswith(".safetensors")]) > 2
    assert whole - {".gitattributes"} == {"eval.md", *listed(tmp_path / "model")}
    for name, content in published_files(tmp_path / "model", "me/bit").items():
        assert tree[name].content == content, name


# -- timm


def test_timm_has_only_the_released_shapes(checkpoint, tmp_path: Path) -> None:
    message = refused(2, "--checkpoint", checkpoint, "--output", tmp_path / "model", "--layout", "timm")
    assert len(message.splitlines()) == 1
    assert "six released shapes" in message
    assert list(tmp_path.iterdir()) == []


def recipes() -> list[str]:
    """One variant of each way to prepare images and each network."""
    seen: dict[tuple[str, str], str] = {}
    for variant in variants():
        if not variant.embedded:
            seen.setdefault((variant.architecture, str(variant.preprocessing)), variant.name)
    return list(seen.values())


@pytest.mark.parametrize("name", recipes())
def test_timm_prepares_images_by_the_recipe(name: str) -> None:
    import timm
    import torch

    (variant,) = find(name)
    recipe = variant.preprocessing
    config = timm_config(Plan(variant.repository_name, variant.network, variant, Storage("timm")))
    with torch.device("meta"):
        model = timm.create_model(
            config["architecture"], num_classes=config["num_classes"], pretrained_cfg=config["pretrained_cfg"]
        )
    data = timm.data.resolve_data_config(model=model)
    assert [*data["mean"]] == [*recipe.mean] == [*data["std"]] == [*recipe.std] == [0.5, 0.5, 0.5]
    assert data["interpolation"] == {2: "bilinear", 3: "bicubic"}[recipe.resample]
    steps = timm.data.create_transform(**data).transforms
    if edge := recipe.size.get("shortest_edge"):
        assert data["crop_mode"] == "center"
        side = recipe.crop[0] if recipe.crop else edge
        assert (steps[0].size, tuple(steps[1].size)) == (edge, (side, side))
    else:
        assert data["crop_mode"] == "squash"
        assert tuple(steps[0].size) == (recipe.size["height"], recipe.size["width"])
    assert model.num_classes == (variant.classes or 0)


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("released") / "R50x1.npz", LARGE[1].checkpoint())


@pytest.mark.slow
def test_stock_timm_gives_googles_logits_from_the_folder_and_offline_from_a_hub(
    released, tmp_path: Path, monkeypatch, capsys
) -> None:
    """The verification is stock timm's; then the row's own images."""
    import timm
    import torch

    golden, folder, hub = LARGE[1], tmp_path / "model", tmp_path / "hub"
    report = converted(
        released, folder, "--variant", "BiT-M-R50x1-ILSVRC2012", "--layout", "timm", "--exact", "logits",
        "--push", "--hub", hub, "--repo-id", "me/bit",
    )["report"]  # fmt: skip
    assert [(reader["name"], reader["verdict"]) for reader in report["readers"]] == [
        ("bit_ref with transformers' arithmetic", "passed"), ("bit_ref", "passed")
    ]  # fmt: skip
    audit = audited(folder, released, tmp_path / "parity", "--variant", "BiT-M-R50x1-ILSVRC2012")
    assert [(reader["name"], reader["verdict"]) for reader in audit["readers"]] == [
        ("timm", "passed"), ("bit_ref", "passed")
    ]  # fmt: skip
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        logits = model(torch.from_numpy(golden.images())).double().numpy()
    assert np.abs(logits - golden.logits()).max() <= 4 * golden.google_f32_error()
    data = timm.data.resolve_data_config(model=model)
    assert ([*data["input_size"]], data["crop_mode"], data["crop_pct"]) == ([3, 480, 480], "squash", 1.0)
    assert (data["interpolation"], [*data["mean"]], [*data["std"]]) == ("bilinear", [0.5] * 3, [0.5] * 3)
    assert model.pretrained_cfg["label_names"][0].startswith("tench")
    assert len(model.pretrained_cfg["label_names"]) == 1000
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "image.jpg")
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(snippet.replace("FOLDER", str(folder)), "card", "exec"), {})
    label, feature_map, embedding = capsys.readouterr().out.splitlines()
    assert label in model.pretrained_cfg["label_names"]
    assert (feature_map, embedding) == ("torch.Size([1, 2048, 15, 15])", "torch.Size([1, 2048])")
    np.save(tmp_path / "images.npy", golden.images())
    np.save(tmp_path / "logits.npy", logits)
    code = (
        "import sys, numpy, timm, torch\n"
        "_, folder, hub = sys.argv\n"
        "model = timm.create_model('hf-hub:me/bit', pretrained=True, cache_dir=hub).eval()\n"
        "with torch.inference_mode():\n"
        "    logits = model(torch.from_numpy(numpy.load(folder + '/images.npy'))).double().numpy()\n"
        "numpy.testing.assert_allclose(logits, numpy.load(folder + '/logits.npy'), atol=1e-4)\n"
        "data = timm.data.resolve_data_config(model=model)\n"
        "names = model.pretrained_cfg['label_names']\n"
        "print(tuple(data['input_size']), data['crop_mode'], data['interpolation'], len(names), names[0])"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    result = python(code, tmp_path, hub, environment=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("(3, 480, 480) squash bilinear 1000 tench")


@pytest.mark.slow
def test_a_headless_timm_folder_gives_features_and_the_way_back(released, tmp_path: Path) -> None:
    import timm
    import torch

    tensors = {name: value for name, value in LARGE[1].checkpoint().items() if "head" not in name}
    source = save(tmp_path / "headless.npz", tensors)
    report = converted(source, tmp_path / "model", "--layout", "timm")["report"]
    assert report["readers"][0]["verdict"] == "passed"
    model = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    assert model.num_classes == 0
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 2048)
    converted(tmp_path / "model", tmp_path / "back", "--layout", "npz", "--no-verify")
    with open_checkpoint(tmp_path / "back") as back:
        assert all(back.read(name).tobytes() == value.tobytes() for name, value in tensors.items())
    (path,) = (tmp_path / "back").glob("*.npz")
    assert path.stat().st_size == npz_bytes(Architecture.released("R50x1", None))
