"""Oracles beside the first: they agree, their disagreement is no pass, and none shares code with what is judged."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import verify
from tests.checkpoints import TINY, make_checkpoint
from tests.verify.support import MemorySource, TorchModel, target_of
from verify import AuditSettings, audit, default_images
from verify.oracles.agreement import MAKERS, OracleRequest
from verify.oracles.numpy import NumpyOracle
from verify.oracles.tensorflow import TensorFlowOracle
from verify.protocols import OracleError

ROOT = Path(verify.__file__).parent
ORACLES = sorted(path for path in (ROOT / "oracles").rglob("*.py") if path.stem != "agreement")
ALLOWED = {"verify.protocols", "verify.tensorflow", "verify.tf32"}
TENSORFLOW = OracleRequest("tensorflow", MAKERS["tensorflow"])


def name_of(path: Path) -> str:
    return ".".join(["verify", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


def is_part(name: str, oracle: str) -> bool:
    """Whether a module is the oracle's own: itself, or of the package that it is."""
    owner = ".".join(oracle.split(".")[:3])
    return len(owner.split(".")) == 3 and (name == owner or name.startswith(owner + "."))


@pytest.fixture(scope="module")
def tensors():
    return make_checkpoint((1, 2), 32, 5, seed=3, kernel_std=1e-3, mids=(64, 32))


def audited(tensors, other_oracles, model=None, **options):
    source = MemorySource(tensors)
    target = target_of(source, None, model or TorchModel(tensors))
    return audit(target, source, AuditSettings(images=default_images(48, 40), other_oracles=other_oracles, **options))


@pytest.mark.parametrize("golden", TINY, ids=str)
def test_tensorflow_oracle_equals_googles_logits(golden):
    oracle = TensorFlowOracle(MemorySource(golden.checkpoint()))
    images = [image[None] for image in golden.images()]
    assert [layer.name for layer in oracle.layers(images)][-1] == "features"
    logits = np.concatenate([block.truth for block in oracle.head_blocks()], axis=1)
    assert np.abs(logits - golden.logits()).max() <= 1e-10


@pytest.mark.parametrize("classes", [5, 1, None])
@pytest.mark.parametrize("padding", ["zeros", "-inf"])
def test_oracles_agree_in_every_layer(classes, padding):
    tensors = make_checkpoint((1, 2), 32, classes, seed=3, kernel_std=1e-3, mids=(64, 32))
    images = default_images(48, 41)
    theirs = {
        (layer.name, layer.image): layer.truth
        for layer in TensorFlowOracle(MemorySource(tensors), pool_padding=padding).layers(images)
    }
    count = 0
    for layer in NumpyOracle(MemorySource(tensors), pool_padding=padding, float32_runs=0).layers(images):
        np.testing.assert_allclose(theirs[layer.name, layer.image], layer.truth, rtol=0, atol=1e-11)
        count += 1
    assert count == len(theirs) == 12
    model = TorchModel(tensors, pool_padding=-np.inf if padding == "-inf" else 0.0)
    report = audited(tensors, [TENSORFLOW], model, pool_padding=padding)
    assert report, report.reason
    assert report.oracle == "NumPy float64 and TensorFlow float64"


def test_faults_are_found_with_two_oracles(tensors):
    report = audited(tensors, [TENSORFLOW], TorchModel(tensors, epsilon=1e-8))
    assert (report.verdict, report.fault.kind) == ("failed", "standardisation epsilon")


def test_disagreement_is_no_pass_and_says_where(tensors):
    def other(source, padding):
        name = "resnet/block2/unit01/b/group_norm/beta"
        return TensorFlowOracle(MemorySource(tensors | {name: tensors[name] * np.float32(1 + 1e-6)}))

    report = audited(tensors, [OracleRequest("other", other)])
    assert report.verdict == "inconclusive"
    assert report.reason.startswith("the oracles disagree: TensorFlow float64 differs at block2/unit01 on image 1")


def test_disagreeing_head_is_no_pass(tensors):
    def other(source, padding):
        return TensorFlowOracle(MemorySource(tensors | {"resnet/head/conv2d/bias": np.zeros(5, np.float32)}))

    report = audited(tensors, [OracleRequest("other", other)])
    assert (report.verdict, "differs at logits" in report.reason) == ("inconclusive", True)


def test_silent_missing_and_broken_oracles_are_no_pass(tensors):
    class Silent:
        name, note, classes = "silent", "", None

        def layers(self, images):
            return iter(())

        def head_blocks(self):
            raise OracleError("has no head")

    class Broken(Silent):
        def layers(self, images):
            raise OracleError("cannot be walked")
            yield

    def absent(source, padding):
        raise ImportError(name="flax")

    for other, reason in [
        (lambda *_: Silent(), "silent: has no head"),
        (lambda *_: Broken(), "silent: cannot be walked"),
        (absent, "the silent oracle was not run: flax is not installed"),
    ]:
        report = audited(tensors, [OracleRequest("silent", other)])
        assert (report.verdict, report.reason) == ("inconclusive", reason)
    headless = {name: value for name, value in tensors.items() if "head" not in name}
    assert audited(headless, [OracleRequest("silent", lambda *_: Silent())]).reason == "silent gave nothing to compare"


@pytest.mark.parametrize("path", ORACLES, ids=name_of)
def test_oracles_import_no_code_that_is_judged(path):
    """Of the three packages, an oracle imports the protocols, TensorFlow, and itself: no remap, no model, no other."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names.add(node.module)
    ours = {name for name in names if name.split(".")[0] in ("verify", "converters", "bit_ref")}
    assert {name for name in ours if not is_part(name, name_of(path))} <= ALLOWED


@pytest.mark.parametrize("path", [p for p in ORACLES if name_of(p) != "verify.oracles"], ids=name_of)
def test_oracles_load_no_code_that_is_judged(path):
    code = (
        f"import sys, {name_of(path)}\n"
        "loaded = [n for n in sys.modules if n.split('.')[0] in ('verify', 'converters', 'bit_ref', 'torch', 'timm')]\n"
        "print(sorted(loaded))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in ast.literal_eval(result.stdout) if not is_part(name, name_of(path))}
    assert loaded <= {"verify", "verify.oracles", *ALLOWED}
