"""Every format through the command line: Google's logits, identical bytes, any network, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForImageClassification

from bit_ref import BitForImageClassification
from tests.checkpoints import LARGE, TINY, Golden, make_checkpoint, make_input
from tests.command_line import converted, elsewhere, refused, run
from tests.converters.sources.conftest import FORMATS
from tests.converters.sources.writers import torch_names
from tests.file_server import FileServer
from tests.hub_server import HubServer
from tests.verify.support import TorchModel

STOCK_ARITHMETIC = "bit_ref with transformers' arithmetic"
FACTOR = 4
"""Times Google's own float32 error."""
ROW = TINY[2]
"""The row whose kernels are so small that the standardisation epsilon shows."""
SOURCES = (
    "npz", "h5 with whole names", "SavedModel", "TF1-Hub", "SavedModel .tar.gz", "TF2 checkpoint", "TF1 checkpoint",
    "big_vision params/", "transformers", "timm", "original", "transformers in shards", "original .bin",
)  # fmt: skip
"""One of each kind; their spellings are told apart in tests/converters/sources."""
SLOW = tuple(name for name in FORMATS if name.startswith(("h5", "SavedModel", "TF2")))
"""What takes seconds to write."""
EXACT = ("bits", "logits")
Digests = dict[str, dict[str, str]]
"""Exactness → name of a file → its digest."""
LIBRARIES = {
    "bits": [BitForImageClassification],
    "logits": [BitForImageClassification, AutoModelForImageClassification],
}


def written(format: str, tensors: dict[str, np.ndarray], folder: Path) -> Path:
    folder.mkdir()
    return FORMATS[format](tensors, folder)


def padding(format: str) -> list[str]:
    """big_vision's network pads with -inf, Google's golden logits with zeros."""
    return ["--pool-padding", "zeros"] if format.startswith("big_vision") else []


def logits(library, folder: Path, images: np.ndarray) -> np.ndarray:
    model = library.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(torch.from_numpy(images)).logits.double().numpy()


def digests(folder: Path) -> dict[str, str]:
    """Of the files that a library reads a network from."""
    names = ("model.safetensors", "config.json")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def expect_googles_logits(checkpoint: object, rows: list[Golden], folder: Path, *options: object) -> Digests:
    """Converts with each exactness and holds each library against golden rows; returns the digests of each folder."""
    for exact in EXACT:
        converted(checkpoint, folder / exact, "--exact", exact, "--no-verify", *options)
        for library, golden in product(LIBRARIES[exact], rows):
            error = np.abs(logits(library, folder / exact, golden.images()) - golden.logits()).max()
            assert error <= FACTOR * golden.google_f32_error(), (exact, library.__module__, golden.name)
    return {exact: digests(folder / exact) for exact in EXACT}


def expect_the_same(checkpoint: object, expected: Digests, folder: Path, *options: object) -> None:
    """Converts with each exactness to the files that gave Google's logits."""
    for exact in EXACT:
        converted(checkpoint, folder / exact, "--exact", exact, "--no-verify", *options)
        assert digests(folder / exact) == expected[exact]


# -- golden rows, and the same bytes


@pytest.fixture(scope="module")
def row() -> dict[str, np.ndarray]:
    return ROW.checkpoint()


@pytest.fixture(scope="module")
def expected(row, tmp_path_factory) -> Digests:
    """From the npz, with Google's logits."""
    folder = tmp_path_factory.mktemp("npz")
    return expect_googles_logits(written("npz", row, folder / "source"), [ROW], folder)


@pytest.mark.parametrize(
    "format",
    [
        pytest.param(name, marks=pytest.mark.slow) if name.startswith(("SavedModel", "TF2")) else name
        for name in SOURCES
    ],
)
def test_every_source_gives_the_bytes_that_gave_googles_logits(format: str, row, expected, tmp_path: Path) -> None:
    source = written(format, row, tmp_path / "source")
    expect_the_same(source, expected, tmp_path, *padding(format))


@pytest.mark.parametrize("file", ["model.npz", "module.tar.gz"])
def test_a_url_gives_the_bytes_that_gave_googles_logits(file: str, row, expected, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    source = written("npz" if file.endswith("npz") else "TF1-Hub .tar.gz of a folder", row, tmp_path / "source")
    with FileServer({f"/{file}": source.read_bytes()}) as server:
        expect_the_same(server.url(f"/{file}"), expected, tmp_path)


def test_a_repository_gives_the_same_bytes(row, expected, tmp_path: Path) -> None:
    """Those that gave Google's logits."""
    source = written("transformers", row, tmp_path / "source")
    with HubServer() as hub:
        hub.add("someone/bit", files={file.name: file.read_bytes() for file in source.iterdir()})
        answers = elsewhere(
            *(
                (
                    "convert",
                    "--checkpoint",
                    "hf://someone/bit",
                    "--output",
                    tmp_path / exact,
                    "--exact",
                    exact,
                    "--no-verify",
                )
                for exact in EXACT
            ),
            HF_ENDPOINT=hub.url,
            HF_HOME=str(tmp_path / "home"),
        )
    assert [status for status, _, _ in answers] == [0, 0], answers
    assert {exact: digests(tmp_path / exact) for exact in EXACT} == expected


@pytest.fixture(scope="module")
def expected_of_two_rows(tmp_path_factory) -> Digests:
    """Google's logits of two rows of one checkpoint, one with images of odd sides, from its npz."""
    assert (TINY[0].seed, TINY[0].kernel_std) == (TINY[1].seed, TINY[1].kernel_std)
    folder = tmp_path_factory.mktemp("two rows")
    return expect_googles_logits(written("npz", TINY[0].checkpoint(), folder / "source"), TINY[:2], folder)


@pytest.mark.slow
@pytest.mark.parametrize("format", [name for name in SOURCES if name not in ("npz", *SLOW)])
def test_other_golden_rows_from_every_source(format: str, expected_of_two_rows, tmp_path: Path) -> None:
    """The bytes that gave them. What takes seconds to write has one checkpoint, above."""
    source = written(format, TINY[0].checkpoint(), tmp_path / "source")
    expect_the_same(source, expected_of_two_rows, tmp_path, *padding(format))


@pytest.mark.slow
def test_released_size_gives_googles_logits(tmp_path: Path) -> None:
    """The npz of every size is in test_golden.py, timm's layout in test_layouts.py."""
    golden = LARGE[1]
    expect_googles_logits(written("TF1 checkpoint", golden.checkpoint(), tmp_path / "source"), [golden], tmp_path)


def test_big_vision_is_judged_with_its_own_padding(row, tmp_path: Path) -> None:
    """By default its max-pool pads with -inf: TensorFlow's own max-pool, which does the same, is the truth here."""
    source = written("big_vision", row, tmp_path / "source")
    entry = converted(source, tmp_path / "model")
    report = entry["report"]
    assert (report["verdict"], report["pool_padding"]) == ("passed", "-inf")
    assert [reader["verdict"] for reader in report["readers"]] == ["passed", "passed"]
    assert "its max-pool, which pads with zeros" in report["readers"][1]["reason"]
    assert json.loads((tmp_path / "model/config.json").read_text())["pool_padding"] == "-inf"
    images = make_input(1, 64, 64)
    wide = {name: value.astype(np.float64) for name, value in row.items()}
    truth, with_zeros = (
        TorchModel(wide, pool_padding=pad).run(images.astype(np.float64))["logits"] for pad in (-np.inf, 0.0)
    )
    ours = logits(BitForImageClassification, tmp_path / "model", images)
    assert np.abs(ours - truth).max() <= FACTOR * ROW.google_f32_error()
    assert np.abs(with_zeros - truth).max() > 100 * ROW.google_f32_error()


@pytest.mark.parametrize("option", [(), ("--dry-run",), ("--no-verify",)], ids=" ".join)
def test_logits_of_stock_libraries_cannot_be_had_with_big_vision_s_padding(option, row, tmp_path: Path) -> None:
    source = written("big_vision", row, tmp_path / "source")
    arguments = ("--checkpoint", source, "--output", tmp_path / "model", "--exact", "logits", *option)
    message = refused(2, *arguments)
    assert str(source) in message
    assert "--exact bits" in message
    assert "--pool-padding zeros" in message
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert run(*arguments, "--pool-padding", "zeros").exit_code == 0


# -- the law: any network, in any format, to any layout that can hold it


@dataclass(frozen=True)
class Case:
    """A network, what it is kept in, and what it is to become."""

    units: tuple[int, ...]
    mids: tuple[int, ...]
    width: int
    classes: int | None
    seed: int
    format: str
    layout: str
    dtype: str
    exact: str
    shards: bool

    def tensors(self) -> dict[str, np.ndarray]:
        return make_checkpoint(self.units, self.width, self.classes, self.seed, 1e-3, self.mids)

    def options(self) -> list[str]:
        """Stock libraries cannot pad with -inf, so what they are to compute is asked with zeros."""
        options = ["--layout", self.layout, "--dtype", self.dtype, "--exact", self.exact]
        options += padding(self.format) if self.exact == "logits" else []
        return options + (["--max-shard-size", "100KB"] if self.shards else [])


@st.composite
def cases(draw: st.DrawFn, formats: tuple[str, ...], blocks: int) -> Case:
    widths = st.sampled_from([32, 64, 96])
    units = draw(st.lists(st.integers(1, 2), min_size=1, max_size=blocks).map(tuple))
    layout = draw(st.sampled_from(["transformers", "original", "npz"]))
    return Case(
        units=units,
        mids=tuple(draw(widths) for _ in units),
        width=draw(widths),
        classes=draw(st.none() | st.integers(2, 30)),
        seed=draw(st.integers(0, 2**31)),
        format=draw(st.sampled_from(formats)),
        layout=layout,
        dtype="float32" if layout == "npz" else draw(st.sampled_from(["float32", "float16", "bfloat16"])),
        exact=draw(st.sampled_from(EXACT)) if layout == "transformers" else "bits",
        shards=draw(st.booleans()),
    )


def expect_verified(case: Case, folder: Path) -> None:
    """Passed, in the layout's declared reader, every tensor accounted for."""
    source = written(case.format, case.tensors(), folder / "source")
    report = converted(source, folder / "model", *case.options())["report"]
    count = len(case.tensors())
    assert report["verdict"] == "passed"
    assert report["readers"][0]["name"] == (STOCK_ARITHMETIC if case.exact == "logits" else "bit_ref")
    assert (report["layout"], report["dtype"], report["exact"]) == (case.layout, case.dtype, case.exact)
    assert report["tensors"] == dict.fromkeys(("source", "used", "target", "filled", "bit_exact"), count)
    shutil.rmtree(folder)


@settings(max_examples=6)
@given(case=cases(tuple(name for name in FORMATS if name not in SLOW), blocks=2))
def test_any_network_in_any_format_is_verified_in_any_layout(case: Case, tmp_path_factory) -> None:
    expect_verified(case, tmp_path_factory.mktemp("law"))


@pytest.mark.slow
@settings(max_examples=10)
@given(case=cases(tuple(FORMATS), blocks=3))
def test_any_larger_network_in_any_format_is_verified_in_any_layout(case: Case, tmp_path_factory) -> None:
    expect_verified(case, tmp_path_factory.mktemp("law"))


# -- what is refused, and leaves nothing


def expect_nothing_but(source: Path, folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == [source.relative_to(folder).parts[0]]


@pytest.mark.parametrize("content", [b"RIFF1234WEBP", b"\x00" * 64])
def test_an_unknown_file_is_3_with_what_was_looked_for_and_found(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.webp"
    path.write_bytes(content)
    message = refused(3, "--checkpoint", path, "--output", tmp_path / "model")
    assert f"begins with {content[:8]!r}" in message
    for word in ("Looked for", ".npz", ".h5", "SavedModel", "TensorFlow checkpoint", "safetensors", ".bin", ".tar.gz"):
        assert word in message
    expect_nothing_but(path, tmp_path)


def test_another_network_is_3_with_the_nearest_layout_and_what_is_missing_and_unexpected(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    state = torch_names(make_checkpoint((1,), 32, 3, mids=(32,)), "timm")
    state |= {f"head.extra{n}.weight": np.ones(1, "f4") for n in range(5)}
    for name in ("norm.weight", "norm.bias"):
        del state[name]
    (tmp_path / "source").mkdir()
    save_file(state, tmp_path / "source/model.safetensors")
    message = refused(3, "--checkpoint", tmp_path / "source", "--output", tmp_path / "model")
    assert "nearest is R5x0.5 (units 1, root width 32), 3 classes in the timm scheme" in message
    assert "2 missing: norm.weight, norm.bias" in message
    assert "5 unexpected: head.extra0.weight, head.extra1.weight, head.extra2.weight and 2 more" in message
    expect_nothing_but(tmp_path / "source", tmp_path)


def zip_that_lies(folder: Path) -> Path:
    """A member that claims to expand to a terabyte."""
    with zipfile.ZipFile(folder / "model.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("resnet/group_norm/gamma.npy", bytes(1 << 16))
    content = (folder / "model.npz").read_bytes()
    (folder / "model.npz").write_bytes(content.replace(struct.pack("<I", 1 << 16), struct.pack("<I", (1 << 32) - 2)))
    return folder / "model.npz"


def h5_that_loops(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "model.h5", "w") as file:
        file.attrs["layer_names"] = [b"resnet"]
        file["resnet"] = h5py.SoftLink("/resnet")
    return folder / "model.h5"


def h5_that_leads_out(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "model.h5", "w") as file:
        file.attrs["layer_names"] = [b"resnet"]
        file["resnet"] = h5py.ExternalLink("/etc/passwd", "/")
    return folder / "model.h5"


def saved_model_of_junk(folder: Path) -> Path:
    (folder / "variables").mkdir()
    (folder / "saved_model.pb").write_bytes(b"\xff" * 999)
    (folder / "variables/variables.index").write_bytes(b"junk")
    return folder


def checkpoint_of_junk(folder: Path) -> Path:
    (folder / "model.ckpt.index").write_bytes(b"\x00" * 64)
    (folder / "model.ckpt.data-00000-of-00001").write_bytes(b"junk")
    return folder / "model.ckpt"


def safetensors_that_lie(folder: Path) -> Path:
    header = b'{"root.conv.weight":{"dtype":"F32","shape":[64,3,7,7],"data_offsets":[0,37632]}}'
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


def pickle_that_runs(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", f"cos\nsystem\n(S'touch {folder.parent / 'executed'}'\ntR.".encode())
        archive.writestr("archive/version", b"3\n")
    return folder


def archive_that_leads_out(folder: Path) -> Path:
    with tarfile.open(folder / "module.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../../executed"))
    return folder / "module.tar.gz"


HOSTILE = [
    zip_that_lies, h5_that_loops, h5_that_leads_out, saved_model_of_junk, checkpoint_of_junk, safetensors_that_lie,
    pickle_that_runs, archive_that_leads_out,
]  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_a_hostile_file_is_3_and_leaves_nothing(make: Callable[[Path], Path], tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    path = make(tmp_path / "source")
    for option in ("--verify", "--no-verify"):
        message = refused(3, "--checkpoint", path, "--output", tmp_path / "out/model", option)
        assert str(path) in message
    assert sorted(file.name for file in tmp_path.iterdir()) == ["source", "temporary"]
    assert list((tmp_path / "temporary").iterdir()) == []


# -- the catalogue


def test_the_whole_catalogue_is_listed_as_text_and_as_json() -> None:
    content = json.loads(run("--list", "--json").stdout)
    lines = run("--list").stdout.splitlines()
    assert len(content) == len(lines) - 1 == 681
    assert [entry["name"] for entry in content] == [
        line.split("  ")[0].removesuffix(" (defective)") for line in lines[1:]
    ]
    assert {"format", "url", "bytes", "architecture", "classes", "labels", "preprocessing", "source"} <= set(content[0])
    assert {entry["format"] for entry in content} == {"npz", "h5", "saved_model"}


@pytest.mark.parametrize(
    ("pattern", "count"), [("vtab/*", 285), ("tfhub/experts/*", 48), ("*-run0-caltech101", 10), ("BiT-M-R50x1.h5", 1)]
)
def test_the_list_is_filtered(pattern: str, count: int) -> None:
    content = json.loads(run("--list", "--variant", pattern, "--json").stdout)
    assert len(content) == len(run("--list", "--variant", pattern).stdout.splitlines()) - 1 == count


@pytest.mark.parametrize(("name", "right"), [("h5/BiT-S-R50x3", "BiT-S-R50x3"), ("BiT-S-R101x1.h5", "BiT-S-R101x1")])
def test_a_defective_file_is_2_with_the_reason_and_the_file_that_is_right(name, right, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for option in ("--offline", "--dry-run"):
        message = refused(2, "--variant", name, option)
        assert "copy of" in message
        assert message.splitlines()[-1] == f"Take {right}."
    assert list(tmp_path.iterdir()) == []
