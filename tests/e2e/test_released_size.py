"""BiT-M-R152x4-ILSVRC2012 to the byte: a zip file between 2 and 4 GiB, of the released size and structure."""

from __future__ import annotations

import mmap
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import safe_open

from converters.sources import open_checkpoint
from tests.checkpoints import tensor_shapes
from tests.command_line import converted
from tests.file_server import Fault, FileServer

SIZE = 3_746_270_104
"""huggingface/pytorch-image-models hfdocs/source/models/big-transfer.mdx."""
BEYOND, GIB_2 = 108, 2**31 - 1
LAST = "resnet/root_block/standardized_conv2d/kernel"
NOISE = np.random.default_rng(0).standard_normal(1 << 20, np.float32)


def write(path: Path) -> None:
    """Members sorted by name, without zip64 fields in their local headers."""
    with zipfile.ZipFile(path, "w") as archive:
        for turn, (name, shape) in enumerate(sorted(tensor_shapes((3, 8, 36, 3), 256, 1000).items())):
            info = zipfile.ZipInfo(f"{name}.npy")
            count = int(np.prod(shape))
            info.file_size = 128 + 4 * count
            with archive.open(info, "w") as member:
                np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
                noise = np.roll(NOISE, turn)
                while count:
                    member.write(noise[:count].data)
                    count -= min(count, len(noise))


def sums(archive: zipfile.ZipFile) -> dict[str, tuple[int, int]]:
    """Member → size and CRC of its content: equal ones are equal bytes."""
    return {info.filename: (info.file_size, info.CRC) for info in archive.infolist()}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Emptied at once: pytest would keep what three runs leave."""
    with tempfile.TemporaryDirectory(prefix="bit-convert-test-") as folder:
        if shutil.disk_usage(folder).free < 4 * SIZE:
            pytest.skip("15 GB are not free")
        yield Path(folder)


@pytest.mark.slow
def test_a_file_of_the_released_size_is_fetched_converted_and_written_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(folder / "cache"))
    path, weights = folder / "BiT-M-R152x4-ILSVRC2012.npz", folder / "model/model.safetensors"
    write(path)
    assert path.stat().st_size == SIZE
    with zipfile.ZipFile(path) as archive:
        assert sum(info.header_offset > GIB_2 for info in archive.infolist()) == BEYOND

    tag = Fault(headers={"ETag": '"one"'})
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        FileServer({f"/{path.name}": content}, always=tag) as server,
    ):
        converted(server.url(f"/{path.name}"), folder / "model", "--no-verify")
    next((folder / "cache").rglob(path.name)).unlink()
    with np.load(path) as arrays, safe_open(weights, "numpy") as model:
        root = model.get_tensor("bit.embedder.convolution.weight")
        np.testing.assert_array_equal(root, arrays[LAST].transpose(3, 2, 0, 1), strict=True)

    converted(folder / "model", folder / "npz", "--layout", "npz", "--no-verify")
    (written,) = (folder / "npz").glob("*.npz")
    assert abs(written.stat().st_size - SIZE) <= 12, "one member more or less beyond 2 GiB"
    with zipfile.ZipFile(path) as theirs, zipfile.ZipFile(written) as ours:
        assert sums(ours) == sums(theirs)
        assert ours.testzip() is None
    with open_checkpoint(written) as source, np.load(path) as arrays:
        np.testing.assert_array_equal(source.read(LAST), arrays[LAST], strict=True)
