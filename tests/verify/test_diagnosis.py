"""Where a port is wrong and in which way: arithmetic, values a library computes with, and stored values."""

import dataclasses
import json
from itertools import islice

import numpy as np
import pytest

from tests.checkpoints import make_checkpoint, make_input
from tests.verify.support import MemorySource, TorchModel, audited, target_of
from tests.verify.test_audit import HEAD_BIAS, ROOT_KERNEL, UNIT, VALUE_FAULTS
from verify import AuditSettings, Correspondence, audit, default_images
from verify.compare import FACTOR
from verify.diagnosis.arithmetic import DEVIATIONS
from verify.diagnosis.candidates import candidates
from verify.diagnosis.right_steps import RightSteps
from verify.faults import Fault, Kind
from verify.oracles.numpy import Arithmetic
from verify.protocols import OracleError

B_KERNEL = UNIT + "b/standardized_conv2d/kernel"


@pytest.fixture(scope="module")
def tensors():
    return make_checkpoint((1, 2), 32, 5, seed=3, kernel_std=1e-3, mids=(64, 32))


@pytest.mark.parametrize(
    ("fault", "kind", "place", "detail"),
    [
        ({"epsilon": 1e-8}, "standardisation epsilon", "root", "1e-08, as stock"),
        ({"epsilon": 1e-5}, "standardisation epsilon", "root", "1e-05 instead of 1e-10; and so 3 later layers"),
        ({"norm_epsilon": 1e-6}, "norm epsilon", "block1/unit01", "1e-06"),
        ({"groups": 16}, "group count", "block1/unit01", "16 groups instead of 32"),
        ({"groups": 1}, "group count", "block1/unit01", "1 groups"),
        ({"pool_padding": -np.inf}, "max-pool padding", "root", "-inf"),
        ({"stride_on": "a"}, "stride", "block2/unit01", "first 1×1"),
        ({"relu_after_add": True}, "activation", "block1/unit01", "after the addition"),
    ],
    ids=lambda value: str(value),
)
def test_wrong_arithmetic_is_named_where_it_begins(tensors, fault, kind, place, detail):
    (found,) = audited(tensors, TorchModel(tensors, **fault)).faults
    assert (found.kind, found.place) == (kind, place)
    assert detail in found.detail


COMPUTED = {
    "flipped kernel": ("mirrored kernel", B_KERNEL),
    "flipped stem": ("mirrored kernel", ROOT_KERNEL),
    "transposed kernel": ("transposed kernel", B_KERNEL),
    "swapped betas": ("swapped tensors", UNIT + "b/group_norm/beta"),
    "swapped units": ("swapped tensors", B_KERNEL),
    "float16 round trip": ("reduced precision", "resnet/block2/unit02/c/standardized_conv2d/kernel"),
    "permuted input channels": ("permuted channels", ROOT_KERNEL),
    "permuted final gammas": ("permuted channels", "resnet/group_norm/gamma"),
    "permuted head rows": ("permuted channels", "logits"),
    "permuted classes": ("shifted labels", "logits"),
    "dropped bias": ("dropped bias", "logits"),
    "shifted bias": ("shifted labels", "logits"),
    "one value of the head": ("changed values", "logits"),
    "NaN in the model alone": ("not a number", "block2/unit01"),
}


@pytest.mark.parametrize("fault", VALUE_FAULTS)
def test_wrong_values_in_the_library_are_named(tensors, fault):
    change, _ = VALUE_FAULTS[fault]
    found = audited(tensors, TorchModel(change(dict(tensors)))).fault
    assert (found.kind, found.place) == COMPUTED[fault]


def test_a_fault_in_the_first_unit_is_not_blamed_on_the_last():
    """Below every end-to-end limit of the units before the last, yet a fault of the first."""
    tensors = make_checkpoint((3, 3), 32, 5, seed=3, mids=(32, 32))
    name = "resnet/block1/unit03/b/standardized_conv2d/kernel"
    wrong = tensors | {name: tensors[name].astype(np.float16).astype(np.float32)}
    report = audited(tensors, TorchModel(wrong), size=48)
    assert report.fault == Fault("reduced precision", name, "float16 round trip")


@pytest.mark.slow
def test_two_faults_are_both_found(tensors):
    wrong = tensors | {B_KERNEL: np.ascontiguousarray(tensors[B_KERNEL][::-1, ::-1])}
    report = audited(tensors, TorchModel(wrong, norm_epsilon=1e-3))
    assert report.faults[0].kind == "norm epsilon"
    assert any(fault.place in (B_KERNEL, "block2/unit01") for fault in report.faults[1:])


class Noisy(TorchModel):
    """Computes something that no known fault explains, in one unit."""

    def _unit(self, at, x, stride):
        out = super()._unit(at, x, stride)
        return out * 1.001 if at.endswith("block2/unit01/") else out


@pytest.mark.slow
def test_unknown_arithmetic_names_the_layer(tensors):
    (found,) = audited(tensors, Noisy(tensors)).faults
    assert (found.kind, found.place) == ("unknown arithmetic", "block2/unit01")
    assert found.detail.endswith(f"× float32 rounding (limit {FACTOR:g} ×)")


@pytest.mark.slow
def test_search_is_cut_by_the_work_it_takes_and_says_so(tensors, monkeypatch):
    monkeypatch.setattr("verify.diagnosis.computed.BUDGET", 400 * 10**6)
    tried = []
    reports = [
        audited(tensors, Noisy(tensors), progress=lambda what, *_: tried.append(what.endswith("?"))) for _ in range(2)
    ]
    (found,) = reports[0].faults
    assert (found.kind, found.place) == ("unknown arithmetic", "block2/unit01")
    count = sum(tried) // 2
    assert 10 < count < 100
    assert f"the search was cut after {count} of some" in found.detail
    assert reports[0].to_json() == reports[1].to_json()


class Half(TorchModel):
    """Computes in bfloat16."""

    def _conv(self, at, x, stride=1):
        return super()._conv(at, x, stride).bfloat16().float()


@pytest.mark.slow
def test_half_precision_everywhere_is_reduced_precision(tensors, monkeypatch):
    (found,) = audited(tensors, Half(tensors), size=33).faults
    assert (found.kind, found.place) == ("reduced precision", "root")
    assert "every layer is off" in found.detail
    assert "cut" not in found.detail
    monkeypatch.setattr("verify.diagnosis.computed.BUDGET", 400 * 10**6)
    (found,) = audited(tensors, Half(tensors)).faults
    assert found.kind == "reduced precision"
    assert "; the search was cut after" in found.detail


def test_misshapen_layer_is_other_shape(tensors):
    wider = make_checkpoint((1, 2), 64, 5, seed=3, kernel_std=1e-3, mids=(64, 32))
    (found,) = audited(tensors, TorchModel(wider)).faults
    assert (found.kind, found.place) == ("other shape", "root")


def test_stored_fault_explains_what_is_computed_from_it(tensors):
    held = tensors | {B_KERNEL: np.ascontiguousarray(tensors[B_KERNEL][::-1, ::-1])}
    source = MemorySource(tensors)
    report = audit(target_of(source, held), source, AuditSettings(images=default_images(48)))
    assert report.faults == (Fault("mirrored kernel", "!" + B_KERNEL, "height and width reversed"),)


def test_stored_and_computed_faults_are_told_apart(tensors):
    held = tensors | {HEAD_BIAS: np.roll(tensors[HEAD_BIAS], 1)}
    source = MemorySource(tensors)
    report = audit(
        target_of(source, held, TorchModel(held, epsilon=1e-5)), source, AuditSettings(images=default_images(48))
    )
    assert [(f.kind, f.place) for f in report.faults] == [
        ("shifted labels", "!" + HEAD_BIAS),
        ("standardisation epsilon", "root"),
    ]


def test_many_stored_faults_of_one_kind_are_one(tensors):
    held = {name: value * np.float32(10) if value.ndim == 4 else value for name, value in tensors.items()}
    source = MemorySource(tensors)
    (found, *_) = audit(
        target_of(source, held, TorchModel(tensors)), source, AuditSettings(images=default_images(33))
    ).faults
    assert found.kind == "scaled values"
    assert found.place == "!" + ROOT_KERNEL
    assert found.detail == "ten times as large; and so 12 more tensors"


def test_another_checkpoint_of_the_same_shape(tensors):
    other = make_checkpoint((1, 2), 32, 5, seed=4, kernel_std=1e-3, mids=(64, 32))
    source = MemorySource(tensors)
    (found,) = audit(target_of(source, other), source, AuditSettings(images=default_images(33))).faults
    assert (found.kind, found.place) == ("other checkpoint", "every tensor")


def test_missing_and_unexpected_tensors(tensors):
    source = MemorySource(tensors)
    target = target_of(source, {**tensors, "extra": np.zeros(3, np.float32)}, TorchModel(tensors))
    target.correspondences = [pair for pair in target.correspondences if pair.source != HEAD_BIAS]
    target.correspondences.append(Correspondence("other", "!other", np.empty, np.empty))
    faults = audit(target, source, AuditSettings(images=default_images(33))).faults
    assert {(f.kind, f.place) for f in faults} == {
        ("unexpected tensor", "!extra"),
        ("unexpected tensor", HEAD_BIAS),
        ("unexpected tensor", "!" + HEAD_BIAS),
        ("missing tensor", "other"),
        ("missing tensor", "!other"),
    }


def test_what_passes_has_no_fault(tensors):
    report = audited(tensors)
    assert (report.faults, report.fault) == ((), None)


def test_every_kind_that_is_found_is_explained():
    import re
    from pathlib import Path

    import verify
    from verify.faults import RECORDS

    paths = [path for path in Path(verify.__file__).parent.rglob("*.py") if path.name != "faults.py"]
    code = "".join(path.read_text() for path in paths)
    assert not re.findall(r'(?:Fault|Difference|Change|Deviation|_rows)\(\s*"([^"]+)"', code)
    records = {kind.name for kind in RECORDS.values()}
    assert {*re.findall(r"\bKind\.([A-Z_]+)", code), *records} == {kind.name for kind in Kind}
    assert all(kind.meaning.endswith(".") for kind in Kind)


def test_a_kind_is_written_as_its_text(tensors):
    fault = Fault(Kind.MIRRORED_KERNEL, "a", "b")
    assert str(fault) == "a: mirrored kernel, b"
    report = dataclasses.replace(audited(tensors), verdict="failed", faults=(fault,))
    assert json.loads(report.to_json())["faults"] == [{"kind": "mirrored kernel", "place": "a", "detail": "b"}]


@pytest.mark.slow
def test_candidates_that_share_right_steps_give_what_each_gives_alone(tensors):
    layer, steps, given = "block2/unit01", RightSteps(), []
    image = np.random.default_rng(0).standard_normal((1, 256, 5, 5), np.float32)
    for _, build in islice(candidates(Arithmetic(), MemorySource(tensors), layer), 0, None, 3):
        given.append([outcome(build(), layer, image, each) for each in (None, steps)])
    assert len(given) > 200
    for one, other in given:  # some divide by zero
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * np.nanmax(np.abs(one), initial=1.0))


def outcome(oracle, layer, image, steps):
    """What a candidate gives; nothing where it cannot be computed."""
    try:
        return oracle.layer_with(steps, layer, [image])[0].truth
    except (OracleError, ValueError):
        return np.zeros(0)


def test_a_wrong_arithmetic_has_float32_runs_as_the_right_one():
    """The study of the limits takes them for models under test."""
    deviation = next(each for each in DEVIATIONS if each.part == "kernel")
    suspect = deviation.oracle(MemorySource(make_checkpoint((1,), 32, None, kernel_std=1e-3)), Arithmetic())
    suspect.float32_runs = 1
    for layer in suspect.layers([make_input(1, 33, 33)]):
        (run,) = layer.runs
        assert 0 < np.abs(run - layer.truth).max() < 1e-4 * np.abs(layer.truth).max()
