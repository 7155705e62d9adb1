"""Stock libraries count: those that are exact but for the epsilon that they hard-code pass, and no others."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.checkpoints import make_checkpoint
from tests.command_line import audited, converted
from tests.verify.folders import FolderTarget, write_folder
from tests.verify.support import MemorySource, TorchModel, target_of
from tests.verify.test_stock_ports import timm_target
from verify import AuditSettings, BitRefReader, TimmReader, TransformersReader, audit, default_images, thorough_images
from verify.images import SMALLEST


@pytest.fixture
def no_search(monkeypatch):
    """For what fails for reasons that are not asked for: a diagnosis would search for them."""
    monkeypatch.setattr("verify.diagnosis.computed.BUDGET", 0)


def random_network(seed):
    """A small network of any depths and widths; kernel deviations from 1e-5 to 0.3."""
    random = np.random.default_rng(seed)
    units = tuple(int(n) for n in random.integers(1, 3, random.integers(1, 4)))
    return make_checkpoint(
        units,
        width=32 * int(random.integers(1, 3)),
        classes=[None, 1, 7, 200][seed % 4],
        seed=seed,
        kernel_std=float(np.float32(10 ** random.uniform(-5, -0.52))),
        mids=tuple(32 * int(n) for n in random.integers(1, 4, len(units))),
    )


def audited_beside(place, tensors, *readers, size=(48, 40), factor=1, **options):
    """The report on a folder of these tensors, read by bit_ref and by ``readers`` made of it."""
    folder = write_folder(place, tensors, factor)
    source = MemorySource(tensors)
    target = FolderTarget(folder, source, [BitRefReader(folder), *(make(folder) for make in readers)], factor)
    images = options.pop("images", None) or default_images(*size)
    return audit(target, source, AuditSettings(images=images, **options))


def imitation(folder):
    return BitRefReader(folder, epsilon_override=1e-8)


def honest(place, seed):
    random = np.random.default_rng(seed)
    size = tuple(int(n) for n in random.integers(33, 98, 2))
    report = audited_beside(place, random_network(seed), imitation, TransformersReader, size=size)
    assert report, report.reason
    assert max(reader.ratio for reader in report.readers) < 2.5
    assert [reader.epsilon for reader in report.readers] == [1e-10, 1e-8, 1e-8]
    _, ours, theirs = report.readers
    assert ours.moved == theirs.moved


@pytest.mark.parametrize("seed", range(8))
def test_honest_networks_of_any_kernel_scale_are_exact_but_for_the_epsilon(tmp_path, seed):
    honest(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8, 60))
def test_sixty_honest_networks_are_exact_but_for_the_epsilon(tmp_path, seed):
    honest(tmp_path, seed)


@pytest.mark.parametrize("seed", [1, 2, 5])
@pytest.mark.parametrize("factor", [1, 10])
def test_the_imitation_computes_what_the_library_computes(tmp_path, seed, factor):
    """Published figures rest on the imitation: beside the library its values are within float32's rounding."""
    tensors = random_network(seed)
    folder = write_folder(tmp_path, tensors, factor)
    images = np.concatenate(default_images(56, 40))
    ours, theirs = imitation(folder).run(images), TransformersReader(folder).run(images)
    assert list(ours) == list(theirs)
    for name, values in theirs.items():
        assert np.linalg.norm(ours[name] - values) <= 1e-5 * np.linalg.norm(values), name


# Faults behind the epsilon


class Faulty(TransformersReader):
    """The library with a fault in its model."""

    def __init__(self, folder, change):
        super().__init__(folder)
        self.change = change

    def _plain(self):
        model = super()._plain()
        self.change(model, dict(model.named_modules()))
        return model


def other_padding(model, modules):
    class Pooled(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.max_pool2d(x, 3, 2, 1)

    modules["bit.embedder"].pad = torch.nn.Identity()
    modules["bit.embedder"].pooler = Pooled()


def norm_epsilon(model, modules):
    modules["bit.encoder.stages.0.layers.0.norm1"].eps = 1e-6


def norm_epsilons(model, modules):
    for module in modules.values():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e-6


def swapped_norms(model, modules):
    unit = modules["bit.encoder.stages.1.layers.1"]
    unit.norm2, unit.norm3 = unit.norm3, unit.norm2


def swapped_units(model, modules):
    layers = modules["bit.encoder.stages.2"].layers
    layers[1], layers[2] = layers[2], layers[1]


def another_epsilon(model, modules):
    modules["bit.encoder.stages.0.layers.0.conv2"].eps = 1e-7


def google_s_epsilon(model, modules):
    for module in modules.values():
        if hasattr(module, "eps") and isinstance(module, torch.nn.Conv2d):
            module.eps = 1e-10


def half_weights(model, modules):
    model.half().float()


def head_bias(model, modules):
    model.classifier[-1].bias.data.zero_()


FAULTS = [
    (other_padding, "root", "max-pool padding"),
    (norm_epsilon, "block1/unit01", None),
    (norm_epsilons, "block1/unit01", "norm epsilon"),
    (swapped_norms, "block2/unit02", None),
    (swapped_units, "block3/unit02", None),
    (another_epsilon, "block1/unit01", None),
    (google_s_epsilon, "root", None),
    (half_weights, "root", "reduced precision"),
    (head_bias, "logits", "dropped bias"),
]


@pytest.mark.parametrize(("change", "place", "kind"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_faults_behind_the_epsilon_are_found(tmp_path, change, place, kind, request):
    if kind is None:
        request.getfixturevalue("no_search")
    tensors = make_checkpoint((1, 2, 3), 32, 5, seed=3, kernel_std=2e-3, mids=(64, 32, 32))
    report = audited_beside(tmp_path, tensors, lambda folder: Faulty(folder, change))
    assert (report.verdict, report.readers[0].verdict, report.readers[1].verdict) == ("failed", "passed", "failed")
    assert report.readers[1].exceeds_limit_at == place
    assert report.reason.startswith(f"transformers: {place} exceeds its limit on image ")
    assert kind in (None, report.fault.kind)


@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("num_groups", 16, "block1/unit01"),
        ("hidden_act", "gelu", "block1/unit01"),
        ("layer_type", "bottleneck", None),
        ("output_stride", 8, None),
        ("embedding_dynamic_padding", True, "root"),
        ("width_factor", 2, None),
    ],
)
def test_what_only_the_library_follows_in_the_config_is_found(tmp_path, field, value, place):
    tensors = make_checkpoint((1, 1, 1), 32, 5, seed=3, kernel_std=2e-3, mids=(32, 32, 32))

    def make(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {field: value}))
        return TransformersReader(folder)

    folder = write_folder(tmp_path, tensors)
    source = MemorySource(tensors)
    target = FolderTarget(folder, source, [TorchModel(tensors), make(folder)])
    report = audit(target, source, AuditSettings(images=default_images(48)))
    assert (report.verdict, report.readers[1].verdict) == ("failed", "failed")
    assert place in (None, report.readers[1].exceeds_limit_at)


@pytest.fixture(scope="module")
def timm_s_size():
    return make_checkpoint((3, 4, 6, 3), 64, 10, seed=3, kernel_std=1e-2)


@pytest.mark.slow
@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize(
    "arguments",
    [
        None,
        {"global_pool": "max"},
        {"act_layer": "gelu"},
        {"output_stride": 16},
        {"avg_down": True},
        {"stem_type": "fixed"},
    ],
    ids=str,
)
def test_what_only_timm_follows_is_found(timm_s_size, tmp_path, arguments):
    tensors = timm_s_size
    target = timm_target(tmp_path, tensors, 1)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": arguments or {}}))
    target.readers = [TorchModel(tensors), TimmReader(tmp_path)]
    report = audit(target, MemorySource(tensors), AuditSettings(images=default_images(64)))
    assert report.readers[0].verdict == "passed"
    if arguments is None:
        assert report, report.reason
        assert report.readers[1].ratio < 2.5
        assert "exact except for the library's epsilon (1e-8)" in report.reason
    else:
        assert (report.verdict, report.readers[1].verdict) == ("failed", "failed")


# Folders that could mislead, and half precisions


def test_a_library_is_not_given_what_could_mislead_it(tmp_path):
    class Untouchable(TransformersReader):
        def _plain(self):
            raise AssertionError("it was given the folder")

    tensors = make_checkpoint((1,), 32, 3, kernel_std=2e-3, mids=(32,))
    folder = write_folder(tmp_path, tensors)
    source = MemorySource(tensors)
    target = FolderTarget(folder, source, [BitRefReader(folder), Untouchable(folder)])
    target.misleading = "config.json auto_map names code"
    report = audit(target, source, AuditSettings(images=default_images(40)))
    assert not report.passed
    assert report.readers[1].verdict == "not run"
    assert report.readers[1].reason == "it is not given this folder: config.json auto_map names code"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "source.npz"
    np.savez(path, **make_checkpoint((1, 2), 32, 10, seed=5, kernel_std=1e-2, mids=(32, 64)))
    return path


def test_nothing_that_a_library_prints_comes_on_stdout(checkpoint, tmp_path, monkeypatch):
    plain = TransformersReader._plain

    def talkative(self):
        print("Do you wish to run the custom code? [y/N]")
        return plain(self)

    monkeypatch.setattr(TransformersReader, "_plain", talkative)
    converted(checkpoint, tmp_path / "model", "--no-verify")
    assert audited(tmp_path / "model", checkpoint, tmp_path / "parity")["verdict"] == "passed"


@pytest.mark.parametrize(
    ("dtype", "exact", "inputs"),
    [
        ("float16", "bits", "thorough"), ("bfloat16", "logits", "thorough"),
        ("float16", "logits", "default"), ("bfloat16", "bits", "default"),
    ],
)  # fmt: skip
def test_a_half_precision_that_is_stored_and_declared_is_run_and_judged_by_its_own_limits(
    checkpoint, tmp_path, dtype, exact, inputs
):
    converted(checkpoint, tmp_path / "model", "--dtype", dtype, "--exact", exact, "--no-verify")
    report = audited(tmp_path / "model", checkpoint, tmp_path / "parity", "--inputs", inputs)
    assert report["verdict"] == "passed", report["reason"]
    readers = {reader["name"]: reader["verdict"] for reader in report["readers"]}
    assert readers == dict.fromkeys(["bit_ref", "transformers", f"transformers in {dtype}"], "passed")
    places = {each["place"]: each["found"] for each in report["expectations"]}
    assert places["transformers: dtype of a plain load"] == dtype


@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize("field", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_plain_load_that_computes_in_less_than_what_is_stored_is_a_fault(tmp_path, dtype, field):
    tensors = make_checkpoint((1,), 32, 3, kernel_std=2e-3, mids=(32,))
    folder = write_folder(tmp_path, tensors, **{field: dtype})
    source = MemorySource(tensors)
    target = FolderTarget(folder, source, [BitRefReader(folder), TransformersReader(folder)])
    report = audit(target, source, AuditSettings(images=default_images(40)))
    assert (report.verdict, report.fault.kind) == ("failed", "configuration")
    assert report.reason == f"transformers: dtype of a plain load is {dtype}, not float32"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_libraries_are_given_a_safetensors_copy_of_a_pickle(checkpoint, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    folder = tmp_path / "model"
    converted(checkpoint, folder, "--dtype", dtype, "--no-verify")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    report = audited(folder, checkpoint, tmp_path / "parity")
    assert report["verdict"] == "passed", report["reason"]
    assert "transformers" in [reader["name"] for reader in report["readers"]]
    assert all(reader["verdict"] == "passed" for reader in report["readers"])
    assert list((tmp_path / "temporary").glob("bit-verify-*")) == []


# Batches and small images


class Neighbours(TorchModel):
    """Group norms that take their statistics over the whole batch."""

    def _norm(self, at, x):
        scale, bias = self._tensor(at + "group_norm/gamma"), self._tensor(at + "group_norm/beta")
        grouped = x.reshape(len(x), self.groups, -1)
        mean = grouped.mean(dim=(0, 2), keepdim=True)
        variance = grouped.var(dim=(0, 2), correction=0, keepdim=True)
        normed = ((grouped - mean) / torch.sqrt(variance + self.norm_epsilon)).reshape(x.shape)
        return torch.relu(normed * scale[:, None, None] + bias[:, None, None])


@pytest.mark.parametrize("outputs", [None, ("logits",)])
def test_an_image_must_give_the_same_in_a_batch(outputs):
    tensors = make_checkpoint((1, 1), 32, 5, seed=3, mids=(32, 32))
    source = MemorySource(tensors)
    images = thorough_images(40)
    assert audit(target_of(source, None, TorchModel(tensors, outputs=outputs)), source, AuditSettings(images=images))
    model = Neighbours(tensors, outputs=outputs)
    assert audit(target_of(source, None, model), source, AuditSettings(images=default_images(40)))
    report = audit(target_of(source, None, model), source, AuditSettings(images=images))
    assert (report.verdict, report.fault.kind) == ("failed", "batch")
    assert "exceeds its limit on image 3 in a batch of 2" in report.reason
    assert len(report.images) == 8


def test_a_reader_that_gives_less_than_a_batch_is_none():
    class First(TorchModel):
        def run(self, image):
            return {name: values[:1] for name, values in super().run(image).items()}

    tensors = make_checkpoint((1,), 32, 5, seed=3, mids=(32,))
    source = MemorySource(tensors)
    report = audit(target_of(source, None, First(tensors)), source, AuditSettings(images=thorough_images(40)))
    assert report.verdict == "failed"
    assert "root is of 1 images, not of 2" in report.reason


def test_images_too_small_to_judge_by_are_refused():
    source = MemorySource(make_checkpoint((1,), 32, 5, mids=(32,)))
    for size in [(SMALLEST - 1, 40), (40, SMALLEST - 1), (1, 1)]:
        with pytest.raises(ValueError, match="too small: give 9 or more"):
            audit(target_of(source), source, AuditSettings(images=default_images(*size)))
