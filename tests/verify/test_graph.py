"""The graph oracle: SavedModels that TensorFlow wrote, run by their own graph; and graphs that are not to be run."""

from contextlib import suppress
from itertools import product

import numpy as np
import pytest

from tests.checkpoints import TINY, make_checkpoint
from tests.converters.sources import writers
from tests.verify.support import MemorySource, TorchModel, target_of
from verify import AuditSettings, audit, default_images
from verify.oracles.agreement import MAKERS, OracleRequest
from verify.oracles.graph import GraphOracle, machine
from verify.oracles.numpy import NumpyOracle
from verify.protocols import OracleError

UNITS, WIDTH, MIDS = (2, 1), 32, (64, 32)
CHANNELS = 4 * MIDS[-1]
MODULES = {
    "TF2 signature": (writers.tf2_module, {}, "-1 … 1"),
    "TF2 signature, 0 … 1": (writers.tf2_module, {"range_": (0, 1)}, "0 … 1"),
    "TF2 signature, 0 … 255": (writers.tf2_module, {"range_": (0, 255)}, "0 … 255"),
    "TF2 __call__": (writers.tf2_module, {"called": "__call__"}, "-1 … 1"),
    "TF1": (writers.tf1_hub_module, {"with_graph": True}, "0 … 1"),
    "TF1 resource variables": (writers.tf1_hub_module, {"with_graph": True, "use_resource": True}, "0 … 1"),
    "TF1 features": (writers.tf1_hub_module, {"with_graph": True, "output": "features"}, "0 … 1"),
}
"""Kind of module → its writer, the writer's options, and the range of its colours."""


def network(classes, seed=3):
    return make_checkpoint(UNITS, WIDTH, classes, seed, kernel_std=1e-3, mids=MIDS)


@pytest.fixture(scope="module")
def tensors():
    return network(5)


@pytest.fixture(scope="module")
def folder(tensors, tmp_path_factory):
    return writers.tf1_hub_module(tensors, tmp_path_factory.mktemp("module") / "tf1", with_graph=True)


def source_of(tensors, folder, **options):
    return MemorySource(tensors, location=str(folder), format="saved-model", **options)


def module(tensors, folder, **options):
    """A hub module with its graph, as a source."""
    return source_of(tensors, writers.tf1_hub_module(tensors, folder / "module", with_graph=True, **options))


def audited(source, asked=True, size=(48, 41), **options):
    other = OracleRequest("graph", MAKERS["graph"], asked)
    return audit(
        target_of(source), source, AuditSettings(images=default_images(*size), other_oracles=[other], **options)
    )


def refused(source):
    with pytest.raises(OracleError) as caught:
        list(GraphOracle(source).layers(default_images(33)))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# -- it agrees


@pytest.mark.parametrize(
    ("kind", "classes"),
    [*((kind, 5) for kind in MODULES), *product(["TF2 signature", "TF1", "TF1 features"], [1, None])],
)
def test_graph_computes_what_numpy_computes(kind, classes, tmp_path):
    """Each kind of module; each kind of output, the head's, in the three that have one of their own: where colours are
    scaled and where variables lie, no output is known."""
    write, options, colours = MODULES[kind]
    tensors = network(classes)
    source = source_of(tensors, write(tensors, tmp_path / "module", **options))
    images = default_images(48, 41)
    oracle, numpy = GraphOracle(source), NumpyOracle(source)
    assert (oracle.note, oracle.classes) == (f"takes colours in {colours}", classes)
    layers = list(oracle.layers(images))
    name = "features" if classes is None or "features" in kind else "logits"
    assert [(layer.name, layer.image) for layer in layers] == [(name, 0), (name, 1)]
    for layer in layers:
        np.testing.assert_allclose(layer.truth, numpy.forward(images[layer.image])[name][0], rtol=0, atol=1e-12)
    report = audited(source)
    assert report, report.reason
    assert report.oracle == "NumPy float64 and the SavedModel's graph in float64"
    (other,) = report.other_oracles
    assert (other.verdict, other.compared) == ("agrees", 2)


@pytest.mark.slow
def test_graph_of_keras_layers_computes_what_numpy_computes(tmp_path):
    """Layers inside layers make functions inside functions."""
    tensors = make_checkpoint((1, 1), WIDTH, 5, seed=3, kernel_std=1e-3, mids=MIDS)
    report = audited(source_of(tensors, writers.saved_model(tensors, tmp_path / "module", keras_norms=True)))
    assert (report.verdict, report.other_oracles[0].compared) == ("passed", 2), report.reason


@pytest.mark.parametrize("golden", TINY[1:], ids=str)
@pytest.mark.parametrize("kind", ["TF2 signature", "TF1"])
def test_graph_gives_googles_logits(golden, kind, tmp_path):
    write, options, _ = MODULES[kind]
    tensors = golden.checkpoint()
    source = source_of(tensors, write(tensors, tmp_path / "module", **options))
    layers = list(GraphOracle(source).layers([image[None] for image in golden.images()]))
    logits = np.stack([layer.truth for layer in layers if layer.name == "logits"])
    assert np.abs(logits - golden.logits()).max() <= 1e-10


def test_graph_of_one_size_leaves_out_other_images(tensors, tmp_path):
    source = module(tensors, tmp_path, size=40)
    images = [*default_images(33), *default_images(40)]
    assert [layer.image for layer in GraphOracle(source).layers(images)] == [2, 3]
    report = audit(
        target_of(source), source, AuditSettings(images=images, other_oracles=[OracleRequest("graph", MAKERS["graph"])])
    )
    assert (report.verdict, report.other_oracles[0].compared) == ("passed", 2)


def test_graph_that_fits_no_image_gives_nothing_to_compare(tensors, tmp_path):
    source = module(tensors, tmp_path, size=40)
    why = "it takes images of 40 × 40 alone, and there is none"
    report = audited(source)
    assert (report.verdict, report.reason) == ("inconclusive", f"the SavedModel's graph in float64: {why}")
    unasked = audited(source, asked=False)
    assert (unasked.verdict, unasked.oracle) == ("passed", "NumPy float64")
    assert (unasked.other_oracles[0].verdict, unasked.other_oracles[0].reason) == ("not run", why)


def test_graph_beside_rounded_values_is_compared_on_the_source_itself(tensors, folder):
    """A float16 folder is judged by rounded values, which the graph's variables are not."""
    source = source_of(tensors, folder)
    rounded = {name: value.astype(np.float16).astype(np.float32) for name, value in tensors.items()}
    judge = source_of(rounded, folder)
    target = target_of(judge)
    report = audit(
        target,
        source,
        AuditSettings(
            judged_by=judge, images=default_images(48), other_oracles=[OracleRequest("graph", MAKERS["graph"])]
        ),
    )
    assert (report.verdict, report.other_oracles[0].verdict) == ("passed", "agrees"), report.reason


# -- it disagrees


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    "options",
    [{"epsilon": 1e-8}, {"norm_epsilon": 1.01e-5}, {"change": lambda x: x * (1 + 1e-6)}],
    ids=["epsilon", "norm epsilon", "logits"],
)
def test_graph_of_another_arithmetic_is_no_pass(options, asked, tensors, tmp_path):
    report = audited(module(tensors, tmp_path, **options), asked)
    assert report.verdict == "inconclusive"
    assert report.reason.startswith("the oracles disagree: the SavedModel's graph in float64 differs at logits")
    assert (report.other_oracles[0].verdict, report.oracle) == ("disagrees", "NumPy float64")


@pytest.mark.parametrize("asked", [True, False])
def test_swapped_names_are_no_pass(asked, tensors, folder):
    """The graph finds its variables by its own names, so that a table with two rows swapped shows."""
    one, other = (f"resnet/block1/unit0{unit}/b/group_norm/beta" for unit in (1, 2))
    swapped = tensors | {one: tensors[other], other: tensors[one]}
    assert audited(source_of(swapped, folder), asked).verdict == "inconclusive"


def test_other_padding_is_no_pass(tensors, folder):
    source = source_of(tensors, folder)
    model = TorchModel(tensors, pool_padding=-np.inf)
    report = audit(
        target_of(source, None, model),
        source,
        AuditSettings(
            images=default_images(48), pool_padding="-inf", other_oracles=[OracleRequest("graph", MAKERS["graph"])]
        ),
    )
    assert (report.verdict, "the oracles disagree" in report.reason) == ("inconclusive", True)


# -- it is not run


def test_variables_without_a_graph(tensors, tmp_path):
    source = source_of(tensors, writers.tf1_hub_module(tensors, tmp_path / "module"))
    assert refused(source) == "there is no saved_model.pb, only variables"
    report = audited(source)
    assert report.verdict == "inconclusive"
    assert report.reason == "the graph oracle was not run: there is no saved_model.pb, only variables"
    assert audited(source, asked=False)


def test_another_format_has_no_graph(tensors):
    assert refused(MemorySource(tensors)) == "a checkpoint of the format npz has no graph"


def test_operations_in_reach_that_are_no_arithmetic(tensors, tmp_path):
    import tensorflow as tf

    made = tmp_path / "made"
    reads = tf.function(lambda x: x + tf.io.decode_raw(tf.io.read_file(str(made)), tf.float32))
    changes = {
        "DecodeRaw": reads.python_function,
        "PyFunc": lambda x: tf.compat.v1.py_func(lambda y: made.write_text("x") and y, [x], tf.float32),
        "RandomStandardNormal": lambda x: x + tf.random.normal((5,)),
        "DecodeRaw of a function": reads,
    }
    for number, (name, change) in enumerate(changes.items()):
        source = module(tensors, tmp_path / str(number), change=change)
        assert f"is a {name.split()[0]}, which is not run" in refused(source)
        report = audited(source, asked=False)
        assert (report.verdict, report.other_oracles[0].verdict) == ("passed", "not run")
        assert not made.exists()


def test_what_is_out_of_reach_is_not_run(tensors, tmp_path):
    """A file that an initialiser would write, and one that TensorFlow would write before it gives the result."""
    import tensorflow as tf

    first, second = tmp_path / "initialised", tmp_path / "before"

    def after_writing(x):
        with tf.control_dependencies([tf.io.write_file(str(second), "x")]):
            return tf.identity(x)

    source = module(
        tensors, tmp_path, change=after_writing, init_op=lambda: tf.group(tf.io.write_file(str(first), "x"))
    )
    first.unlink(missing_ok=True)
    report = audited(source)
    assert report, report.reason
    assert not first.exists()
    assert not second.exists()
    tf.compat.v1.reset_default_graph()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # TensorFlow itself does write both
        loaded = tf.compat.v1.saved_model.load(session, [], source.location)
        session.run(loaded.signature_def["default"].outputs["default"].name, {"images:0": np.zeros((1, 33, 33, 3))})
    assert first.exists()
    assert second.exists()


def test_bombs(tensors, tmp_path, monkeypatch):
    import tensorflow as tf

    def doubling(levels):
        function = tf.function(lambda x: x + 0.0)
        for _ in range(levels):
            function = tf.function(lambda x, inner=function: inner(inner(x)))
        return function

    bombs = {
        "larger than any": lambda x: x + tf.reduce_sum(tf.fill([1 << 40], 0.0)),
        "makes a tensor larger": lambda x: x + tf.reduce_sum(tf.tile(x, [1 << 20, 1 << 20])),
        "larger than any of a BiT": lambda x: x + tf.reduce_sum(tf.range(0.0, 1e12)),
        "steps": doubling(14),
    }
    monkeypatch.setattr(machine, "MAX_STEPS", 5000)
    for number, (message, change) in enumerate(bombs.items()):
        assert message in refused(module(tensors, tmp_path / str(number), change=change))


def edited(source, folder, edit):
    """A copy of a module whose graph ``edit`` has changed."""
    import shutil

    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    shutil.copytree(source.location, folder)
    content = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    edit(content)
    (folder / "saved_model.pb").write_bytes(content.SerializeToString())
    return source_of(source.tensors, folder)


def operations(content, op):
    return [node for node in content.meta_graphs[0].graph_def.node if node.op == op]


def output_is(name):
    return lambda content: setattr(content.meta_graphs[0].signature_def["default"].outputs["default"], "name", name)


EDITS = {
    "is a Evil, which is not run": lambda content: setattr(operations(content, "Relu")[0], "op", "Evil"),
    "is missing": lambda content: operations(content, "Relu")[0].input.__setitem__(0, "gone"),
    "needs itself": lambda content: [node.input.__setitem__(0, node.name) for node in operations(content, "Relu")],
    "fails: ": lambda content: setattr(operations(content, "MaxPool")[0].attr["padding"], "s", b"NONE"),
    "no signature that takes images": lambda content: content.meta_graphs[0].signature_def.clear(),
    "no graph but for training": lambda content: content.meta_graphs[0].meta_info_def.tags.append("train"),
    "neither logits nor": output_is("MaxPool:0"),
    "come of no convolution": output_is("mul:0"),
}


@pytest.mark.parametrize("message", EDITS)
def test_edited_graphs_are_refused(message, tensors, folder, tmp_path):
    source = edited(source_of(tensors, folder), tmp_path / "edited", EDITS[message])
    assert message in refused(source)


def test_damaged_graphs_are_refused(tensors, folder, tmp_path):
    """Flipped bits: whatever becomes of them, it is an OracleError, or the graph is run; a half of it is refused."""
    import shutil

    shutil.copytree(folder, tmp_path / "module")
    file = tmp_path / "module/saved_model.pb"
    whole = file.read_bytes()
    source = source_of(tensors, tmp_path / "module")
    for position in np.random.default_rng(0).integers(8 * len(whole), size=30):
        broken = bytearray(whole)
        broken[position // 8] ^= 1 << int(position % 8)
        file.write_bytes(broken)
        with suppress(OracleError):
            list(GraphOracle(source).layers(default_images(33)[:1]))
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OracleError):
        list(GraphOracle(source).layers(default_images(33)[:1]))


def test_variable_that_is_missing(tensors, folder, tmp_path):
    def rename(content):
        for node in content.meta_graphs[0].graph_def.node:
            if node.op == "VariableV2" and node.name.endswith("resnet/group_norm/beta"):
                node.attr["shared_name"].s = b"elsewhere"

    source = edited(source_of(tensors, folder), tmp_path / "edited", rename)
    assert refused(source) == "its variable elsewhere is missing"


def test_damaged_variable_is_refused(tensors, folder, tmp_path):
    """TensorFlow finds the CRC of the tensor wrong when it is read."""
    import shutil

    shutil.copytree(folder, tmp_path / "module")
    (data,) = (tmp_path / "module/variables").glob("variables.data-*")
    content = bytearray(data.read_bytes())
    content[content.index(tensors["resnet/group_norm/gamma"].tobytes())] ^= 1
    data.write_bytes(content)
    assert refused(source_of(tensors, tmp_path / "module")).startswith("its graph is damaged: ")


def test_colours_of_another_scale_are_refused(tensors, tmp_path, monkeypatch):
    from verify.oracles.graph import oracle

    source = module(tensors, tmp_path)
    monkeypatch.setattr(oracle, "READINGS", {"-1 … 1": (0.0, 1.0)})
    assert "colours that it scales by [2.0, 2.0, 2.0] and moves by [-1.0, -1.0, -1.0]" in refused(source)
