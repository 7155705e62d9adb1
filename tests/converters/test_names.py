"""The one table of names, against names spelt by hand and by the libraries themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.architecture import Architecture
from converters.errors import CheckpointError
from converters.names import SCHEMES, Kind, infer, parameters
from tests.checkpoints import tensor_shapes

SMALL = Architecture(units=(2, 1), root_width=32, widths=(64, 96), classes=5)
HEADLESS = Architecture(units=(1, 2), root_width=64, widths=(32, 64), classes=None)

architectures = st.builds(
    Architecture,
    units=st.lists(st.integers(1, 12), min_size=1, max_size=5).map(tuple),
    root_width=st.integers(1, 9).map(lambda n: 32 * n),
    widths=st.lists(st.integers(1, 9).map(lambda n: 32 * n), min_size=5, max_size=5).map(tuple),
    classes=st.none() | st.integers(1, 30000),
).map(lambda a: Architecture(a.units, a.root_width, a.widths[: len(a.units)], a.classes))


def shapes_of(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Spelt by the tests' own helper."""
    return tensor_shapes(architecture.units, architecture.root_width, architecture.classes, architecture.widths)


def in_scheme(architecture: Architecture, scheme: str) -> dict[str, tuple[int, ...]]:
    return {parameter.names[scheme]: parameter.shape for parameter in parameters(architecture)}


def refuse(shapes: dict[str, tuple[int, ...]], scheme: str = "npz") -> str:
    with pytest.raises(CheckpointError) as caught:
        infer(shapes, scheme, "model.npz")
    message = str(caught.value)
    assert message.startswith("model.npz: ")
    assert len(message.splitlines()) <= 2
    return message


@given(architectures)
def test_npz_names_order_and_shapes_are_those_of_the_released_files(architecture: Architecture) -> None:
    assert list(in_scheme(architecture, "npz").items()) == list(shapes_of(architecture).items())


@pytest.mark.parametrize("architecture", [SMALL, HEADLESS], ids=["head", "headless"])
def test_transformers_names_are_those_of_the_library(architecture: Architecture) -> None:
    from transformers import BitConfig, BitForImageClassification, BitModel

    config = BitConfig(
        embedding_size=architecture.root_width,
        hidden_sizes=[4 * width for width in architecture.widths],
        depths=list(architecture.units),
        num_labels=architecture.classes or 2,
    )
    model = (BitModel if architecture.classes is None else BitForImageClassification)(config)
    assert set(in_scheme(architecture, "transformers")) == set(model.state_dict())


@pytest.mark.parametrize(("name", "count"), [("R50x1", 153), ("R101x3", 306), ("R152x4", 459)])
def test_counts_are_nine_a_unit_and_nine_more(name: str, count: int) -> None:
    architecture = Architecture.released(name, classes=21843)
    assert len(parameters(architecture)) == count == 9 * sum(architecture.units) + 9
    assert len(parameters(Architecture.released(name, classes=None))) == count - 2


@given(architectures)
def test_every_scheme_names_every_parameter_once(architecture: Architecture) -> None:
    rows = parameters(architecture)
    assert len({row.canonical for row in rows}) == len(rows)
    for scheme in SCHEMES:
        assert len({row.names[scheme] for row in rows}) == len(rows)


def test_kinds_follow_from_the_tensors_role() -> None:
    kinds = {
        Kind.KERNEL: "standardized_conv2d/kernel",
        Kind.SCALE: "gamma",
        Kind.BIAS: "beta",
        Kind.HEAD_KERNEL: "head/conv2d/kernel",
        Kind.HEAD_BIAS: "head/conv2d/bias",
    }
    for row in parameters(SMALL):
        assert row.names["npz"].endswith(kinds[row.kind])


@pytest.mark.parametrize("scheme", SCHEMES)
@given(architecture=architectures)
def test_architecture_is_read_off_names_and_shapes(scheme: str, architecture: Architecture) -> None:
    assert infer(in_scheme(architecture, scheme), scheme, "model.npz") == architecture


@given(architecture=architectures, data=st.data())
def test_order_of_the_tensors_does_not_matter(architecture: Architecture, data: st.DataObject) -> None:
    shapes = shapes_of(architecture)
    shuffled = data.draw(st.permutations(list(shapes)))
    assert infer({name: shapes[name] for name in shuffled}, "npz", "model.npz") == architecture


@given(architecture=architectures, data=st.data())
def test_any_missing_tensor_is_named(architecture: Architecture, data: st.DataObject) -> None:
    """The last unit's loss of one tensor cannot be mistaken for a shorter network."""
    shapes = shapes_of(architecture)
    name = data.draw(st.sampled_from([name for name in shapes if "root" not in name or len(shapes) > 1]))
    del shapes[name]
    assert f"1 missing: {name}" in refuse(shapes)


@given(architecture=architectures, data=st.data())
def test_any_misshapen_tensor_is_named(architecture: Architecture, data: st.DataObject) -> None:
    shapes = shapes_of(architecture)
    name = data.draw(st.sampled_from([name for name, shape in shapes.items() if "head" not in name]))
    shapes[name] = (*shapes[name][:-1], shapes[name][-1] + 32)
    message = refuse(shapes)
    assert "misshapen" in message or "not a BiT network" in message


def test_all_misfits_come_in_one_error() -> None:
    shapes = shapes_of(SMALL)
    del shapes["resnet/block1/unit02/b/group_norm/gamma"]
    shapes["resnet/block1/unit01/a/standardized_conv2d/kernel"] = (1, 1, 32, 65)
    shapes["resnet/extra"] = (1,)
    message = refuse(shapes)
    assert "1 missing: resnet/block1/unit02/b/group_norm/gamma" in message
    assert "1 unexpected: resnet/extra" in message
    assert "1 misshapen: resnet/block1/unit01/a/standardized_conv2d/kernel is 1×1×32×65, not 1×1×32×64" in message


def test_a_swapped_axis_is_a_misshapen_tensor() -> None:
    shapes = shapes_of(SMALL)
    shapes["resnet/block2/unit01/c/standardized_conv2d/kernel"] = (384, 96, 1, 1)
    assert "384×96×1×1, not 1×1×96×384" in refuse(shapes)


@pytest.mark.parametrize(("root", "width"), [(40, 32), (32, 48), (0, 32)])
def test_channels_that_group_norm_cannot_group_are_refused(root: int, width: int) -> None:
    message = refuse(tensor_shapes((1,), root, 2, (width,)))
    assert "multiple of 32" in message


@pytest.mark.parametrize("shapes", [{}, {"conv1.weight": (64, 3, 7, 7)}, {"resnet/group_norm/gamma": (64,)}])
def test_another_network_is_refused_with_what_was_found_and_looked_for(shapes: dict[str, tuple[int, ...]]) -> None:
    message = refuse(shapes)
    assert "not a BiT checkpoint" in message
    assert "resnet/root_block/standardized_conv2d/kernel" in message
    assert all(name in message for name in shapes)


def test_a_root_alone_is_no_network() -> None:
    refuse({"resnet/root_block/standardized_conv2d/kernel": (7, 7, 3, 64)})


def test_a_head_without_its_bias_is_refused() -> None:
    shapes = shapes_of(SMALL)
    del shapes["resnet/head/conv2d/bias"]
    assert "1 missing: resnet/head/conv2d/bias" in refuse(shapes)


@pytest.mark.parametrize(
    ("architecture", "text"),
    [
        (Architecture.released("R50x1", 1000), "R50x1 (units 3-4-6-3, root width 64), 1000 classes"),
        (Architecture.released("R152x2", None), "R152x2 (units 3-8-36-3, root width 128), no head"),
        (SMALL, "R11x0.5 (units 2-1, root width 32, inner widths 64-96), 5 classes"),
    ],
    ids=["released", "headless", "irregular"],
)
def test_architecture_describes_itself(architecture: Architecture, text: str) -> None:
    assert str(architecture) == text
