"""Audits of honest models and of planted faults: the verdict, and the place it names."""

import warnings
from importlib import import_module

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checkpoints import LARGE, TINY, make_checkpoint, make_input
from tests.verify.support import MemorySource, TorchModel, audited, target_of
from verify import AuditSettings, Correspondence, audit, default_images
from verify.compare import FACTOR
from verify.oracles.numpy import NumpyOracle

UNIT = "resnet/block2/unit01/"
ROOT_KERNEL = "resnet/root_block/standardized_conv2d/kernel"
HEAD_KERNEL, HEAD_BIAS = "resnet/head/conv2d/kernel", "resnet/head/conv2d/bias"


@pytest.fixture(scope="module")
def tensors():
    """A small network whose widths differ, and whose kernels are small enough for an epsilon to show."""
    return make_checkpoint((1, 2), 32, 5, seed=3, kernel_std=1e-3, mids=(64, 32))


def changed(tensors, **changes):
    return {**tensors, **{name.replace("__", "/"): value for name, value in changes.items()}}


# Honest models


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    units=st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple),
    widths=st.lists(st.sampled_from([32, 64, 96]), min_size=5, max_size=5).map(tuple),
    classes=st.sampled_from([None, 1, 2, 10, 100]),
    kernel_std=st.sampled_from([1e-4, 1e-3, 1e-2, 1e-1]),
    seed=st.integers(0, 99),
    size=st.tuples(st.integers(33, 80), st.integers(33, 80)),
    padding=st.sampled_from(["zeros", "-inf"]),
)
def test_honest_models_pass_far_below_the_limit(units, widths, classes, kernel_std, seed, size, padding):
    tensors = make_checkpoint(units, widths[0], classes, seed, kernel_std, mids=widths[1 : 1 + len(units)])
    model = TorchModel(tensors, pool_padding=-np.inf if padding == "-inf" else 0.0)
    target = target_of(MemorySource(tensors), None, model)
    report = audit(
        target, MemorySource(tensors), AuditSettings(images=default_images(*size, seed=seed), pool_padding=padding)
    )
    assert report, report.reason
    assert report.ratio < FACTOR
    assert (
        report.tensors.source == report.tensors.bit_exact == 9 * sum(units) + len(units) + (3 if classes is None else 5)
    )


@pytest.mark.parametrize("golden", TINY, ids=str)
def test_golden_rows_pass(golden):
    report = audited(golden.checkpoint())
    assert report.verdict == "passed"
    assert report.max_abs_error < 4 * report.floor
    assert "bit-exact" in report.reason


@pytest.mark.slow
@pytest.mark.parametrize("golden", LARGE[:2], ids=str)
def test_released_size_passes(golden):
    assert audited(golden.checkpoint(), size=224)


def test_reader_that_gives_logits_alone_is_judged_on_them(tensors):
    report = audited(tensors, TorchModel(tensors, outputs=("logits",)))
    assert report
    assert 0 < report.ratio < FACTOR
    wrong = audited(tensors, TorchModel(tensors, outputs=("logits",), norm_epsilon=1e-4))
    assert (wrong.verdict, wrong.readers[0].exceeds_limit_at) == ("failed", "logits")


def test_zero_gammas_and_a_zero_head_pass():
    tensors = make_checkpoint((1, 1), 32, 3, mids=(32, 32))
    zeroed = {
        name: np.zeros_like(value) if name.endswith("c/group_norm/gamma") or "head" in name else value
        for name, value in tensors.items()
    }
    report = audited(zeroed)
    assert report, report.reason
    assert report.max_abs_error == 0


def test_every_image_of_a_batch_is_judged(tensors):
    images = [make_input(3, 40, 56), make_input(1, 64, 33)]
    report = audit(target_of(MemorySource(tensors)), MemorySource(tensors), AuditSettings(images=images))
    assert report
    assert [(image.height, image.width) for image in report.images] == [(40, 56)] * 3 + [(64, 33)]
    assert len({image.sha256 for image in report.images}) == 4


def test_constant_image_is_no_evidence_alone(tensors):
    black = np.full((1, 3, 64, 64), -1, np.float32)
    alone = audit(target_of(MemorySource(tensors)), MemorySource(tensors), AuditSettings(images=[black]))
    assert alone.verdict == "inconclusive"
    assert "one colour" in alone.reason
    beside = audit(
        target_of(MemorySource(tensors)), MemorySource(tensors), AuditSettings(images=[*default_images(64), black])
    )
    assert beside.verdict == "passed"


# Faults of the arithmetic


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        ({"epsilon": 1e-8}, "root"),
        ({"epsilon": 1e-5}, "root"),
        ({"norm_epsilon": 1e-6}, "block1/unit01"),
        ({"groups": 16}, "block1/unit01"),
        ({"pool_padding": -np.inf}, "root"),
        ({"stride_on": "a"}, "block2/unit01"),
        ({"relu_after_add": True}, "block1/unit01"),
    ],
    ids=lambda value: str(value),
)
def test_faulty_arithmetic_fails_where_it_is(tensors, fault, place):
    report = audited(tensors, TorchModel(tensors, **fault))
    assert report.verdict == "failed"
    assert report.readers[0].exceeds_limit_at == place
    assert report.reason.startswith(f"torch: {place} exceeds its limit on image")
    assert report.ratio > FACTOR


def test_zero_padding_fails_where_the_checkpoint_wants_minus_infinity(tensors):
    assert audited(tensors, pool_padding="-inf").readers[0].exceeds_limit_at == "root"


# Faults of the values a model computes with, the stored ones being right


def flip(kernel):
    return np.ascontiguousarray(kernel[::-1, ::-1])


def one_off(kernel):
    other = kernel.copy()
    other.flat[7] += np.abs(kernel).max() / 50
    return other


def swap(name, other):
    return lambda t: {**t, name: t[other], other: t[name]}


def apply(name, change):
    return lambda t: {**t, name: change(t[name])}


VALUE_FAULTS = {
    "flipped kernel": (apply(UNIT + "b/standardized_conv2d/kernel", flip), "block2/unit01"),
    "flipped stem": (apply(ROOT_KERNEL, flip), "root"),
    "transposed kernel": (
        apply(UNIT + "b/standardized_conv2d/kernel", lambda k: np.ascontiguousarray(k.swapaxes(2, 3))),
        "block2/unit01",
    ),
    "swapped betas": (swap(UNIT + "b/group_norm/beta", UNIT + "c/group_norm/beta"), "block2/unit01"),
    "swapped units": (
        swap("resnet/block2/unit01/b/standardized_conv2d/kernel", "resnet/block2/unit02/b/standardized_conv2d/kernel"),
        "block2/unit01",
    ),
    "float16 round trip": (
        apply("resnet/block2/unit02/c/standardized_conv2d/kernel", lambda k: k.astype(np.float16).astype(np.float32)),
        "block2/unit02",
    ),
    "permuted input channels": (apply(ROOT_KERNEL, lambda k: np.ascontiguousarray(k[:, :, ::-1])), "root"),
    "permuted final gammas": (apply("resnet/group_norm/gamma", lambda g: np.roll(g, 1)), "norm"),
    "permuted head rows": (apply(HEAD_KERNEL, lambda k: np.ascontiguousarray(k[:, :, ::-1])), "logits"),
    "permuted classes": (apply(HEAD_KERNEL, lambda k: np.roll(k, 1, axis=3)), "logits"),
    "dropped bias": (apply(HEAD_BIAS, np.zeros_like), "logits"),
    "shifted bias": (apply(HEAD_BIAS, lambda b: np.roll(b, 1)), "logits"),
    "one value of the head": (apply(HEAD_KERNEL, one_off), "logits"),
    "NaN in the model alone": (apply(UNIT + "b/group_norm/gamma", lambda g: g * np.float32(np.nan)), "block2/unit01"),
}


@pytest.mark.parametrize("fault", VALUE_FAULTS)
def test_wrong_values_fail_where_they_are(tensors, fault):
    change, place = VALUE_FAULTS[fault]
    report = audited(tensors, TorchModel(change(dict(tensors))))
    assert report.verdict == "failed"
    assert report.readers[0].exceeds_limit_at == place
    verb = "differs" if fault.startswith("NaN") else "exceeds its limit"
    assert report.reason.startswith(f"torch: {place} {verb} on image")


@pytest.mark.slow
def test_other_networks_fail(tensors):
    deeper = make_checkpoint((1, 3), 32, 5, seed=3, kernel_std=1e-3, mids=(64, 32))
    report = audited(tensors, TorchModel(deeper))
    assert report.readers[0].exceeds_limit_at == "block2/unit03"
    assert "the checkpoint's network has no such tensor" in report.reason
    shallower = {name: value for name, value in tensors.items() if "block2/unit02" not in name}
    report = audited(tensors, TorchModel(shallower))
    assert report.readers[0].exceeds_limit_at == "block2/unit02"
    assert "gives no such tensor" in report.reason
    wider = make_checkpoint((1, 2), 64, 5, seed=3, kernel_std=1e-3, mids=(64, 32))
    assert "shape (64, 16, 16), not (32, 16, 16)" in audited(tensors, TorchModel(wider)).reason
    more_classes = make_checkpoint((1, 2), 32, 6, seed=3, kernel_std=1e-3, mids=(64, 32))
    assert "logits differs on image 1: shape (6,), not (5,)" in audited(tensors, TorchModel(more_classes)).reason


def test_head_is_neither_lost_nor_invented(tensors):
    headless = {name: value for name, value in tensors.items() if "head" not in name}
    assert "logits differs on image 1: the model gives no such tensor" in audited(tensors, TorchModel(headless)).reason
    assert "logits differs on image 1: the checkpoint's network has no" in audited(headless, TorchModel(tensors)).reason


# Faults of the stored values, the model being right


def stored_report(tensors, held, correspondences=None):
    source = MemorySource(tensors)
    target = target_of(source, held, TorchModel(tensors))
    target.correspondences = correspondences(target) if correspondences else target.correspondences
    return audit(target, source, AuditSettings(images=default_images(33)))


def test_one_unit_in_the_last_place_is_found(tensors):
    name = UNIT + "c/standardized_conv2d/kernel"
    kernel = tensors[name].copy()
    kernel[0, 0, 3, 5] = np.nextafter(kernel[0, 0, 3, 5], np.float32(1))
    report = stored_report(tensors, {**tensors, name: kernel})
    assert report.verdict == "failed"
    assert report.readers[0].verdict == "passed"
    assert report.reason.startswith(f"!{name} differs at [0, 0, 3, 5]: {kernel[0, 0, 3, 5]!s} stored, ")
    assert "(1 of 4096 values differ)" in report.reason
    assert report.tensors.bit_exact == report.tensors.filled - 1


def test_sign_of_zero_and_dtype_are_stored_values_too(tensors):
    zeros = {**tensors, HEAD_BIAS: np.zeros(5, np.float32)}
    assert "-0.0 stored, 0.0 expected (5 of 5" in stored_report(zeros, {**zeros, HEAD_BIAS: -zeros[HEAD_BIAS]}).reason
    half = {**tensors, HEAD_BIAS: tensors[HEAD_BIAS].astype(np.float16)}
    assert "holds float16, not float32" in stored_report(tensors, half).reason


def test_all_misfits_are_reported_and_the_reason_is_capped(tensors):
    held = {name: value * np.float32(2) for name, value in tensors.items()}
    report = stored_report(tensors, held)
    assert len(report.misfits) == len(tensors)
    assert report.tensors.bit_exact == 0
    assert report.reason.startswith(f"!{ROOT_KERNEL} differs at [0, 0, 0, 0]")
    assert report.reason.endswith(f"; and {len(tensors) - 3} more")
    assert "\n" not in report.reason


@pytest.mark.parametrize(
    ("correspondences", "misfits", "counts"),
    [
        (
            lambda target: target.correspondences[:-1],
            [f"source tensor {HEAD_BIAS} is not used", f"parameter !{HEAD_BIAS} is not filled"],
            {"used": -1, "filled": -1},
        ),
        (
            lambda target: [*target.correspondences, target.correspondences[0]],
            [f"source tensor {ROOT_KERNEL} is used 2 times", f"parameter !{ROOT_KERNEL} is filled 2 times"],
            {"used": -1, "filled": -1},
        ),
        (
            lambda target: [*target.correspondences, Correspondence("other", "!other", np.empty, np.empty)],
            ["source tensor other is missing", "parameter !other is missing"],
            {},
        ),
    ],
    ids=["one unused", "one twice", "one unknown"],
)
def test_accounts_must_balance(tensors, correspondences, misfits, counts):
    report = stored_report(tensors, None, correspondences)
    assert report.verdict == "failed"
    assert list(report.misfits) == misfits
    assert report.tensors.used == len(tensors) + counts.get("used", 0)
    assert report.tensors.filled == len(tensors) + counts.get("filled", 0)


def test_extra_parameter_is_named(tensors):
    report = stored_report(tensors, {**tensors, "extra": np.zeros(3, np.float32)})
    assert report.reason == "parameter !extra is not filled"


# Nothing to conclude


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", [ROOT_KERNEL, UNIT + "c/group_norm/beta", HEAD_KERNEL, HEAD_BIAS])
def test_nan_and_inf_in_a_weight_are_inconclusive(tensors, name, bad):
    broken = tensors[name].copy()
    broken.flat[3] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = audited({**tensors, name: broken})
    assert report.verdict == "inconclusive"
    assert not report
    assert report.reason == f"{name} holds NaN or Inf"


def test_constant_channel_is_inconclusive(tensors):
    name = UNIT + "b/standardized_conv2d/kernel"
    kernel = tensors[name].copy()
    kernel[..., 6] = 0.25
    report = audited({**tensors, name: kernel})
    assert report.verdict == "inconclusive"
    assert report.reason == f"{name} has no variance in output channel 6, where every value is 0.25"


def test_dead_channel_is_none(tensors):
    name = UNIT + "b/standardized_conv2d/kernel"
    kernel = tensors[name].copy()
    kernel[..., 6] = 0
    assert audited({**tensors, name: kernel})


@pytest.mark.parametrize(("name", "factor"), [("resnet/group_norm/gamma", 1e38), (ROOT_KERNEL, 1e30)])
def test_overflow_in_float32_is_inconclusive(tensors, name, factor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = audited({**tensors, name: tensors[name] * np.float32(factor)})
    assert report.verdict == "inconclusive"
    assert "is not finite in float32" in report.reason or "too far to judge by" in report.reason
    assert '"verdict": "inconclusive"' in report.to_json()


def test_useless_floors_are_inconclusive():
    """Biases so large that float32 keeps two digits of what is added to them."""
    tensors = make_checkpoint((1, 1), 32, 5, mids=(32, 32))
    for name in tensors:
        if "block" in name and name.endswith("gamma"):
            tensors[name] = tensors[name] * np.float32(1e-2)
        elif "block" in name and name.endswith("beta"):
            tensors[name] = np.full_like(tensors[name], 1e4)
    report = audited(tensors)
    assert report.verdict == "inconclusive"
    assert "too far to judge by" in report.reason


def test_nothing_compared_is_inconclusive(tensors):
    source = MemorySource(tensors)
    assert audit(target_of(source), source, AuditSettings(images=[])).reason == "nothing was compared: no image"
    without_readers = target_of(source)
    without_readers.readers = []
    report = audit(without_readers, source, AuditSettings(images=default_images(33)))
    assert (report.verdict, report.reason) == ("inconclusive", "nothing was compared: no reader")
    nothing = audit(
        target_of(source, None, TorchModel(tensors, outputs=("features",))),
        source,
        AuditSettings(images=default_images(33)),
    )
    assert (nothing.verdict, nothing.readers[0].exceeds_limit_at) == ("failed", "root")
    empty = MemorySource({})
    report = audit(target_of(empty, {}, TorchModel(tensors)), empty, AuditSettings(images=default_images(33)))
    assert report.verdict == "inconclusive"


def test_source_that_is_no_bit_is_inconclusive(tensors):
    broken = {**tensors, "resnet/group_norm/gamma": np.ones(3, np.float32)}
    report = audit(
        target_of(MemorySource(broken), None, TorchModel(tensors)),
        MemorySource(broken),
        AuditSettings(images=default_images(33)),
    )
    assert report.verdict == "inconclusive"
    assert report.reason == "tiny.npz: resnet/group_norm/gamma has shape (3,), not (128)"


# Readers


class Broken(TorchModel):
    def run(self, image):
        raise RuntimeError("size mismatch\nin /home/someone/models/tiny/model.safetensors")


class Missing(TorchModel):
    def run(self, image):
        return import_module("no_such_library").run(image)


def test_reader_that_cannot_run_fails_without_the_path(tensors):
    report = audited(tensors, Broken(tensors, name="library"))
    assert report.verdict == "failed"
    assert report.reason == "library: cannot run the folder: RuntimeError: size mismatch in model.safetensors"


def test_reader_that_is_not_installed_is_not_run(tensors):
    report = audited(tensors, Missing(tensors, name="library"))
    assert report.verdict == "inconclusive"
    assert report.reason == "library was not run: no_such_library is not installed"
    assert report.readers[0].verdict == "not run"


def test_declared_reader_gives_the_verdict_and_others_are_shown(tensors):
    source = MemorySource(tensors)
    readers = [
        TorchModel(tensors),
        TorchModel(tensors, name="stock", epsilon=1e-8),
        Missing(tensors, name="absent"),
        Broken(tensors, name="broken"),
    ]
    report = audit(target_of(source, None, *readers), source, AuditSettings(images=default_images(64)))
    assert report.passed
    assert [(r.name, r.verdict, r.exceeds_limit_at) for r in report.readers] == [
        ("torch", "passed", None),
        ("stock", "failed", "root"),
        ("absent", "not run", None),
        ("broken", "failed", None),
    ]
    assert report.readers[1].ratio > 100
    assert report.readers[1].max_abs_error > report.max_abs_error
    assert all(reader.closed for reader in readers)


def test_errors_of_reading_are_not_swallowed(tensors):
    class Damaged(MemorySource):
        def read(self, name):
            raise OSError("damaged")

    with pytest.raises(OSError, match="damaged"):
        audit(target_of(MemorySource(tensors)), Damaged(tensors), AuditSettings(images=default_images(33)))


def test_libraries_are_imported_while_stored_values_are_compared(tensors):
    """What goes wrong in that is said by the run, if it is said at all."""

    class Importing(TorchModel):
        def prepare(self):
            order.append("import")
            raise ImportError("not now")

        def run(self, image):
            order.append("run")
            return super().run(image)

    order: list[str] = []
    assert audited(tensors, Importing(tensors))
    assert order == ["import", "run", "run"]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((3, 8, 8), np.float32),
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((1, 3, 8, 8)),
        np.full((1, 3, 8, 8), np.nan, np.float32),
    ],
)
def test_what_is_no_image_is_refused(tensors, image):
    with pytest.raises(ValueError, match="an image"):
        audit(target_of(MemorySource(tensors)), MemorySource(tensors), AuditSettings(images=[image]))


@pytest.mark.parametrize("step", ["!resnet", "torch", "float64, root", "report"])
def test_what_progress_raises_is_raised(tensors, step):
    """It is no fault of the model."""

    def tell(what, done, total):
        if step in what:
            raise KeyError("enough")

    model = TorchModel(tensors)
    with pytest.raises(KeyError, match="enough"):
        audited(tensors, model, progress=tell)
    assert model.closed == (step != "!resnet")


def progress_of(tensors, model=None) -> list[tuple[str, int, int]]:
    """What an audit says while it runs: counts never go back, never pass the total, and end at it."""
    seen = []
    audited(tensors, model, progress=lambda what, done, total: seen.append((what, done, total)))
    for count in ([done for _, done, _ in seen], [total for _, _, total in seen]):
        assert count == sorted(count)
    assert all(done < total for _, done, total in seen[:-1])
    assert seen[-1][1] == seen[-1][2]
    return seen


def test_progress_counts_up_and_names_every_layer_of_the_oracle(tensors):
    seen = progress_of(tensors)
    assert [done for _, done, _ in seen] == list(range(len(seen)))
    assert {total for _, _, total in seen} == {len(seen) - 1}
    layers = ["root", "block1/unit01", "block2/unit01", "block2/unit02", "norm", "features", "logits"]
    assert [what for what, _, _ in seen[-8:]] == [*(f"NumPy float64, {layer}" for layer in layers), "report"]


@pytest.mark.slow
def test_progress_says_what_the_diagnosis_tries(tensors):
    said = [what for what, _, _ in progress_of(tensors, TorchModel(tensors, relu_after_add=True))]
    assert "diagnosis, block1/unit01 on the model's own input" in said
    assert "diagnosis, block1/unit01: group count?" in said
    assert not any("swapped tensors" in what for what in said), "the fault was found before"
    for model in (Broken(tensors), Missing(tensors), TorchModel(tensors, outputs=("logits",), epsilon=1e-5)):
        assert progress_of(tensors, model)[-1][0] == "report"


def test_default_images():
    noise, dim = default_images()
    assert noise.shape == dim.shape == (1, 3, 64, 64)
    assert noise.dtype == dim.dtype == np.float32
    assert abs(noise.std() - 1) < 0.01
    np.testing.assert_array_equal(dim, noise * np.float32(1e-3))
    assert default_images(8, 6)[0].shape == (1, 3, 8, 6)
    np.testing.assert_array_equal(default_images(8)[0], default_images(8)[0])


def test_oracle_is_what_the_report_says(tensors):
    source = MemorySource(tensors)
    logits = NumpyOracle(source).forward(default_images(64)[0])["logits"]
    model = TorchModel(tensors).run(default_images(64)[0])["logits"]
    only = audit(target_of(source), source, AuditSettings(images=default_images(64)[:1]))
    assert only.max_abs_error == pytest.approx(np.abs(model - logits).max(), rel=1e-3)
