"""The one table of names, against names spelt by hand and by the libraries themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import CheckpointError
from converters.mapping.architecture import Architecture
from converters.mapping.layouts import LAYOUTS
from converters.mapping.names import COLUMNS, SCHEMES, TensorKind, infer, match, nearest, parameters, unnumbered
from tests.checkpoints import make_checkpoint, tensor_shapes
from tests.converters.sources.writers import to_big_vision, torch_names

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


@pytest.mark.parametrize("architecture", [SMALL, HEADLESS], ids=["head", "headless"])
@pytest.mark.parametrize("scheme", ["original", "transformers", "timm", "big_vision"])
def test_names_are_those_spelt_by_hand(architecture: Architecture, scheme: str) -> None:
    tensors = make_checkpoint(
        architecture.units, architecture.root_width, architecture.classes, mids=architecture.widths
    )
    spelt = to_big_vision(tensors) if scheme == "big_vision" else torch_names(tensors, scheme)
    assert list(in_scheme(architecture, scheme)) == list(spelt)


@pytest.mark.parametrize("classes", [10, None])
def test_timm_names_and_shapes_are_those_of_the_library(classes: int | None) -> None:
    import timm
    import torch

    with torch.device("meta"):
        state = timm.create_model("resnetv2_50x1_bit", pretrained=False, num_classes=classes or 0).state_dict()
    rows = parameters(Architecture.released("R50x1", classes))
    assert {row.names["timm"]: LAYOUTS["timm"].shape(row) for row in rows} == {
        name: tuple(value.shape) for name, value in state.items()
    }


_TF_PROJECTION = "resnet/block2/unit01/a/proj/standardized_conv2d/kernel"


@pytest.mark.parametrize(
    ("scheme", "projection", "norm", "head"),
    [
        ("npz", _TF_PROJECTION, "resnet/group_norm/gamma", "resnet/head/conv2d/bias"),
        ("keras", _TF_PROJECTION + ":0", "resnet/group_norm/gamma:0", "resnet/head/dense/bias:0"),
        ("tf2", _TF_PROJECTION, "resnet/group_norm/gamma", "resnet/head/dense/bias"),
        ("big_vision", "block2/unit01/conv_proj/kernel", "norm-pre-head/scale", "head/bias"),
        ("original", "body.block2.unit01.downsample.weight", "head.gn.weight", "head.conv.bias"),
        ("timm", "stages.1.blocks.0.downsample.conv.weight", "norm.weight", "head.fc.bias"),
    ],
)
def test_each_column_spells_the_same_rows(scheme: str, projection: str, norm: str, head: str) -> None:
    names = {row.canonical: row.names[scheme] for row in parameters(SMALL)}
    assert names["block2/unit01/proj/conv/kernel"] == projection
    assert (names["norm/scale"], names["head/bias"]) == (norm, head)


@given(architecture=architectures, scheme=st.sampled_from(SCHEMES))
def test_every_row_is_matched_once_by_its_scheme_and_nothing_is_left(architecture: Architecture, scheme: str) -> None:
    names = list(in_scheme(architecture, scheme))
    found = match(names, scheme, "file")
    assert sorted(found.names.values()) == sorted(names)
    assert found.kinds.keys() == set(names)
    assert not found.dropped


@given(architecture=architectures, column=st.sampled_from(COLUMNS), data=st.data())
def test_prefixes_are_taken_off_alike(architecture: Architecture, column, data: st.DataObject) -> None:
    prefix = data.draw(st.sampled_from(column.prefixes))
    names = list(in_scheme(architecture, column.scheme))
    found = match([prefix + name for name in names], column.scheme, "file")
    assert list(found.names.values()) == names


@pytest.mark.parametrize("scheme", ["original", "transformers", "timm"])
@pytest.mark.parametrize(
    ("wrapped", "removed"),
    [
        ("module.{name}", ("module.",)),
        ("_orig_mod.{name}", ("_orig_mod.",)),
        ("module._orig_mod.{name}", ("module.", "_orig_mod.")),
        ("_orig_mod.module.module.{name}", ("module.", "_orig_mod.")),
        ("_fsdp_wrapped_module.{name}", ("_fsdp_wrapped_module.",)),
        ("model.{name}", ("model.",)),
        ("module.net.backbone.{name}", ("module.", "net.backbone.")),
    ],
)
def test_what_wrappers_put_before_names_is_removed_and_said(scheme: str, wrapped: str, removed: tuple) -> None:
    for architecture in (SMALL, HEADLESS):
        names = list(in_scheme(architecture, scheme))
        stored = [wrapped.format(name=name) for name in names]
        found = match(stored, scheme, "file")
        assert (list(found.names), list(found.names.values())) == (stored, names)
        assert found.removed == removed
        assert nearest(stored) == nearest(names)


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod", "_checkpoint_wrapped_module"])
@given(architecture=architectures, scheme=st.sampled_from(["original", "transformers", "timm"]), data=st.data())
def test_parts_of_a_network_may_be_wrapped(wrapper: str, architecture: Architecture, scheme: str, data) -> None:
    """torch.compile or DataParallel of a part stands in the middle of names."""
    names = list(in_scheme(architecture, scheme))
    part = data.draw(st.sampled_from([name.rpartition(".")[0] for name in names]))
    stored = [name.replace(f"{part}.", f"{part}.{wrapper}.") for name in names]
    found = match(stored, scheme, "file")
    assert list(found.names.values()) == names
    assert found.removed == (f"{wrapper}.",)


def test_what_transformers_puts_before_the_names_of_a_network_with_a_head_is_else_a_prefix() -> None:
    names = list(in_scheme(HEADLESS, "transformers"))
    found = match([f"bit.{name}" for name in names], "transformers", "file")
    assert (list(found.names.values()), found.removed) == (names, ("bit.",))


def test_two_names_that_differ_in_a_wrapper_alone_are_one_tensor() -> None:
    names = list(in_scheme(SMALL, "original"))
    with pytest.raises(CheckpointError, match=r"root.conv.weight and module.root.conv.weight are the same tensor"):
        match([*names, "module.root.conv.weight"], "original", "file")


def test_a_prefix_that_only_some_names_have_is_not_removed() -> None:
    names = list(in_scheme(SMALL, "original"))
    found = match([*names, *(f"ema.{name}" for name in names)], "original", "file")
    assert found.removed == ()
    assert found.names["ema.root.conv.weight"] == "ema.root.conv.weight"


def test_the_counter_of_an_averaged_model_is_left_out() -> None:
    names = [f"module.{name}" for name in in_scheme(SMALL, "original")]
    assert match([*names, "n_averaged"], "original", "file").dropped.keys() == {"n_averaged"}
    lightning = [f"ema.{name}" for name in names]
    assert match([*lightning, "ema.n_averaged"], "original", "file").dropped.keys() == {"ema.n_averaged"}


def test_a_name_without_the_others_prefix_is_another_tensor() -> None:
    names = ["params/" + name for name in in_scheme(HEADLESS, "big_vision")]
    found = match([*names, "head/kernel"], "big_vision", "file")
    assert found.names["head/kernel"] == "head/kernel"
    assert "head/kernel" not in found.kinds
    with pytest.raises(CheckpointError, match="are the same tensor"):
        match([*names, "norm-pre-head/bias"], "big_vision", "file")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("resnet/root_block/standardized_conv2d_53/kernel", "resnet/root_block/standardized_conv2d/kernel"),
        ("resnet_1/block1_2/unit01/a/group_norm_7/gamma_3", "resnet/block1/unit01/a/group_norm/gamma"),
        ("resnet/root_block/standardized_conv2d_x/kernel", "resnet/root_block/standardized_conv2d_x/kernel"),
        ("resnet/other_7/kernel", "resnet/other_7/kernel"),
        ("resnet/group_norm/gamma/Adam_1", "resnet/group_norm/gamma/Adam_1"),
        ("_7", "_7"),
    ],
)
def test_only_known_words_lose_their_number(name: str, plain: str) -> None:
    assert unnumbered(name, "npz") == plain


@pytest.mark.parametrize(
    ("scheme", "name", "dropped"),
    [
        ("npz", "global_step", True),
        ("npz", "resnet/group_norm/gamma/Momentum", True),
        ("npz", "resnet/other/gamma/Momentum", False),
        ("npz", "resnet/group_norm/gamma/Other", False),
        ("npz", "/Momentum", False),
        ("big_vision", "opt/state/step", True),
        ("big_vision", "opt/state/param_states/head/kernel/momentum", True),
        ("big_vision", "opt/state/param_states/tail/kernel/momentum", False),
        ("tf2", "Adam/v/resnet/group_norm/beta", True),
        ("tf2", "Other/v/resnet/group_norm/beta", False),
        ("transformers", "global_step", False),
    ],
)
def test_what_is_left_out_has_a_row_that_says_why(scheme: str, name: str, dropped: bool) -> None:
    found = match([*in_scheme(SMALL, scheme), name], scheme, "file")
    assert (name in found.dropped) is dropped
    assert (name in found.names) is not dropped


@given(architecture=architectures, scheme=st.sampled_from(SCHEMES))
def test_the_nearest_scheme_is_the_one_it_was_written_in(architecture: Architecture, scheme: str) -> None:
    """tf2, npz and keras differ in the head alone, but for the ``:0`` of a variable's output."""
    found = nearest(in_scheme(architecture, scheme))
    assert found == scheme or (scheme in ("tf2", "keras") and architecture.classes is None and found == "npz")


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
        TensorKind.KERNEL: "standardized_conv2d/kernel",
        TensorKind.SCALE: "gamma",
        TensorKind.BIAS: "beta",
        TensorKind.HEAD_KERNEL: "head/conv2d/kernel",
        TensorKind.HEAD_BIAS: "head/conv2d/bias",
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
