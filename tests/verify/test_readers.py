"""The libraries on real folders: bit_ref and stock transformers, with a head and without."""

import json
import re

import numpy as np
import pytest

from tests.checkpoints import make_checkpoint
from tests.verify.folders import FolderTarget, write_folder
from tests.verify.support import MemorySource, TorchModel
from verify import AuditSettings, BitRefReader, Report, TransformersReader, audit, default_images

LAYERS = ["root", "block1/unit01", "block2/unit01", "block2/unit02", "norm", "features"]


def checkpoint(classes=5, kernel_std=1e-3):
    return make_checkpoint((1, 2), 32, classes, seed=3, kernel_std=kernel_std, mids=(64, 32))


def audited(folder, tensors, readers, factor=1, **options) -> Report:
    source = MemorySource(tensors)
    return audit(
        FolderTarget(folder, source, readers, factor), source, AuditSettings(images=default_images(48, 40), **options)
    )


@pytest.mark.parametrize("classes", [5, 1, None])
@pytest.mark.parametrize("factor", [1, 10])
def test_bit_ref_is_exact_with_either_exactness(tmp_path, classes, factor):
    tensors = checkpoint(classes)
    folder = write_folder(tmp_path, tensors, factor)
    report = audited(folder, tensors, [BitRefReader(folder)], factor)
    assert report, report.reason
    assert report.ratio < 2.5
    assert [layer.name for layer in report.layers] == LAYERS + ["logits"] * (classes is not None)
    assert report.readers[0].name == "bit_ref"


@pytest.mark.parametrize("classes", [5, None])
def test_transformers_is_exact_with_kernels_ten_times_as_large(tmp_path, classes, capfd):
    tensors = checkpoint(classes)
    folder = write_folder(tmp_path, tensors, factor=10)
    report = audited(folder, tensors, [TransformersReader(folder)], 10)
    assert report, report.reason
    assert report.exact == "logits"
    assert [layer.name for layer in report.layers] == LAYERS + ["logits"] * (classes is not None)
    assert capfd.readouterr().err == ""


def test_stock_arithmetic_on_the_sources_kernels_is_exact_but_for_its_epsilon(tmp_path):
    tensors = checkpoint()
    folder = write_folder(tmp_path, tensors)
    readers = [BitRefReader(folder), BitRefReader(folder, epsilon_override=1e-8), TransformersReader(folder)]
    report = audited(folder, tensors, readers)
    assert report.passed
    own, imitation, stock = report.readers
    assert imitation.name == "bit_ref with transformers' arithmetic"
    assert (own.verdict, imitation.verdict, stock.verdict) == ("passed", "passed", "passed")
    assert (own.role, imitation.role, stock.role) == ("declared", "judged", "judged")
    assert (own.epsilon, imitation.epsilon, stock.epsilon) == (1e-10, 1e-8, 1e-8)
    assert max(reader.ratio for reader in report.readers) < 2.5
    assert own.moved == 0
    assert imitation.moved == stock.moved > 100 * stock.max_abs_error
    assert stock.reason.startswith("exact except for the library's epsilon (1e-8): logits move by 0.0")
    assert re.search(r"logits move by \S+$", stock.reason), "of noise there is no prediction"
    assert f"transformers {stock.reason}" in report.reason


def test_folder_that_declares_no_epsilon_is_read_as_stock(tmp_path):
    tensors = checkpoint()
    folder = write_folder(tmp_path, tensors)
    config = json.loads((folder / "config.json").read_text())
    del config["weight_standardization_eps"]
    (folder / "config.json").write_text(json.dumps(config))
    report = audited(folder, tensors, [BitRefReader(folder)])
    assert (report.verdict, report.readers[0].exceeds_limit_at) == ("failed", "root")


def test_pool_padding_of_minus_infinity(tmp_path):
    tensors = checkpoint()
    folder = write_folder(tmp_path, tensors, factor=10, pool_padding="-inf")
    readers = [BitRefReader(folder), TransformersReader(folder), BitRefReader(folder, epsilon_override=1e-8)]
    report = audited(folder, tensors, readers, 10, pool_padding="-inf")
    assert report, report.reason
    assert [reader.pool_padding for reader in report.readers] == ["-inf", "zeros", "zeros"]
    assert [reader.epsilon for reader in report.readers] == [1e-10] * 3
    for stock in report.readers[1:]:
        assert stock.reason.startswith("exact except for its max-pool, which pads with zeros: logits move by ")
        assert stock.moved > 1000 * stock.max_abs_error


@pytest.mark.parametrize("reader", [BitRefReader, TransformersReader])
def test_tensors_have_the_values_of_an_independent_model(tmp_path, reader):
    tensors = checkpoint()
    folder = write_folder(tmp_path, tensors, factor=10)
    image = default_images(48, 40)[0]
    ours = reader(folder).run(image)
    theirs = TorchModel(tensors).run(image)
    assert list(theirs) == list(ours)
    for name, values in theirs.items():
        assert ours[name].dtype == np.float32
        np.testing.assert_allclose(ours[name].reshape(values.shape), values, rtol=0, atol=1e-5 * np.abs(values).max())


@pytest.mark.parametrize("reader", [BitRefReader, TransformersReader])
def test_missing_tensor_is_no_random_one(tmp_path, reader):
    tensors = checkpoint()
    lacking = {name: value for name, value in tensors.items() if name != "resnet/head/conv2d/bias"}
    folder = write_folder(tmp_path, lacking, factor=10)
    source = MemorySource(lacking)
    report = audit(FolderTarget(folder, source, [reader(folder)], 10), source, AuditSettings(images=default_images(40)))
    assert report.verdict == "failed"
    assert "classifier.1.bias" in report.reason
    assert str(tmp_path) not in report.to_json()


@pytest.mark.parametrize("reader", [BitRefReader, TransformersReader])
def test_unreadable_folder_fails_without_its_path(tmp_path, reader):
    tensors = checkpoint()
    folder = write_folder(tmp_path, tensors, factor=10)
    target = FolderTarget(folder, MemorySource(tensors), [reader(folder)], 10)
    (folder / "model.safetensors").write_bytes(b"cut short")
    report = audit(target, MemorySource(tensors), AuditSettings(images=default_images(40)))
    assert report.verdict == "failed"
    assert "cannot run the folder" in report.reason
    assert str(tmp_path) not in report.to_json()


def test_reader_lets_go_of_its_model(tmp_path):
    folder = write_folder(tmp_path, checkpoint(), factor=10)
    reader = TransformersReader(folder)
    first = reader.run(default_images(40)[0])["logits"]
    reader.close()
    np.testing.assert_array_equal(reader.run(default_images(40)[0])["logits"], first)


def test_bit_ref_keeps_its_kernels_between_batches_of_a_data_set_and_not_while_layers_are_taken(tmp_path, monkeypatch):
    """Kept, they would take as much memory as the weights."""
    from bit_ref.model import StandardizedConv2d

    computed = []
    standardize = StandardizedConv2d.standardized_weight

    def counted(layer):
        computed.append(layer)
        return standardize(layer)

    monkeypatch.setattr(StandardizedConv2d, "standardized_weight", counted)
    reader, image = BitRefReader(write_folder(tmp_path, checkpoint())), default_images(48)[0]
    layers = reader.run(image)
    kernels = len(computed)
    assert kernels == len(set(computed)) > 9
    reader.run(image)
    assert len(computed) == 2 * kernels
    for _ in range(2):
        np.testing.assert_array_equal(reader.logits(image), layers["logits"])
    assert len(computed) == 3 * kernels


def test_transformers_is_here_and_says_which():
    import transformers

    assert TransformersReader.available()
    assert TransformersReader("anywhere").version == transformers.__version__
    assert TransformersReader("anywhere").name == "transformers"
