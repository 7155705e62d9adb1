"""Layouts: the stored form of each kind of tensor, and its way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.mapping.architecture import Architecture
from converters.mapping.layouts import BY_SCHEME, LAYOUTS, STANDARDIZATION_EPSILON, Form, Layout
from converters.mapping.names import Parameter, TensorKind, parameters
from tests.checkpoints import make_checkpoint

SMALL = Architecture(units=(2, 1), root_width=32, widths=(64, 96), classes=5)
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return make_checkpoint(SMALL.units, SMALL.root_width, SMALL.classes, mids=SMALL.widths)


def rows() -> dict[str, Parameter]:
    return {parameter.canonical: parameter for parameter in parameters(SMALL)}


def test_transformers_stores_what_a_written_out_mapping_says(tensors: dict[str, np.ndarray]) -> None:
    layout, row = LAYOUTS["transformers"], rows()
    for canonical, name, expected in (
        ("root/conv/kernel", "bit.embedder.convolution.weight",
         np.einsum("hwio->oihw", tensors["resnet/root_block/standardized_conv2d/kernel"])),
        ("block1/unit02/b/conv/kernel", "bit.encoder.stages.0.layers.1.conv2.weight",
         np.einsum("hwio->oihw", tensors["resnet/block1/unit02/b/standardized_conv2d/kernel"])),
        ("block2/unit01/proj/conv/kernel", "bit.encoder.stages.1.layers.0.downsample.conv.weight",
         np.einsum("hwio->oihw", tensors["resnet/block2/unit01/a/proj/standardized_conv2d/kernel"])),
        ("block2/unit01/c/norm/scale", "bit.encoder.stages.1.layers.0.norm3.weight",
         tensors["resnet/block2/unit01/c/group_norm/gamma"]),
        ("norm/bias", "bit.norm.bias", tensors["resnet/group_norm/beta"]),
        ("head/kernel", "classifier.1.weight", tensors["resnet/head/conv2d/kernel"][0, 0].T),
        ("head/bias", "classifier.1.bias", tensors["resnet/head/conv2d/bias"]),
    ):  # fmt: skip
        stored = layout.store(row[canonical], tensors[row[canonical].names["npz"]], "bits")
        assert layout.parameter_name(row[canonical]) == name
        np.testing.assert_array_equal(stored, expected, err_msg=name, strict=True)


@every_layout
def test_stored_arrays_have_the_declared_shape_and_are_contiguous(layout: Layout, tensors) -> None:
    for parameter in parameters(SMALL):
        stored = layout.store(parameter, tensors[parameter.names["npz"]], "bits")
        assert stored.shape == layout.shape(parameter)
        assert stored.flags["C_CONTIGUOUS"]
        assert stored.dtype == np.float32


@every_layout
def test_logits_store_float32_of_ten_times_the_kernel_and_nothing_else(layout: Layout, tensors) -> None:
    for parameter in parameters(SMALL):
        source = tensors[parameter.names["npz"]]
        bits, logits = (layout.store(parameter, source, exact) for exact in ("bits", "logits"))
        factor = 10.0 if parameter.kind is TensorKind.KERNEL else 1.0
        np.testing.assert_array_equal(logits, (bits.astype(np.float64) * factor).astype(np.float32), strict=True)


@every_layout
def test_overflowing_kernels_become_inf_without_a_warning(layout: Layout) -> None:
    root = rows()["root/conv/kernel"]
    assert np.isinf(layout.store(root, np.full(root.shape, 1e38, np.float32), "logits")).all()


@pytest.mark.parametrize("layout", BY_SCHEME.values(), ids=BY_SCHEME)
@pytest.mark.parametrize("kind", TensorKind)
@settings(max_examples=30)
@given(data=st.data())
def test_every_form_has_an_inverse_that_gives_the_bits_back(
    layout: Layout, kind: TensorKind, data: st.DataObject
) -> None:
    rank = 4 if kind in (TensorKind.KERNEL, TensorKind.HEAD_KERNEL) else 1
    sides = data.draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank))
    for form in (layout.forms[kind], layout.also.get(kind, layout.forms[kind])):
        shape = (1,) * form.drop + tuple(sides[form.drop :])
        array = data.draw(hnp.arrays(np.float32, shape))
        stored = form.store(array)
        assert stored.shape == form.shape(shape)
        assert form.google_shape(stored.shape) == layout.google_shape(kind, stored.shape) == shape
        assert layout.restore(kind, stored).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("scheme", "kind", "shape", "google"),
    [
        ("big_vision", TensorKind.SCALE, (1, 1, 1, 64), (64,)),
        ("big_vision", TensorKind.BIAS, (64,), (64,)),
        ("big_vision", TensorKind.HEAD_KERNEL, (64, 10), (1, 1, 64, 10)),
        ("npz", TensorKind.HEAD_KERNEL, (64, 10), (1, 1, 64, 10)),
        ("keras", TensorKind.HEAD_KERNEL, (64, 10), (1, 1, 64, 10)),
        ("transformers", TensorKind.HEAD_KERNEL, (10, 64), (1, 1, 64, 10)),
        ("timm", TensorKind.HEAD_KERNEL, (10, 64, 1, 1), (1, 1, 64, 10)),
        ("original", TensorKind.KERNEL, (10, 64, 3, 5), (3, 5, 64, 10)),
    ],
)
def test_stored_shapes_are_seen_as_google_s(scheme: str, kind: TensorKind, shape: tuple, google: tuple) -> None:
    assert BY_SCHEME[scheme].google_shape(kind, shape) == google


def test_a_shape_of_no_form_stays_and_is_not_restored() -> None:
    assert BY_SCHEME["big_vision"].google_shape(TensorKind.SCALE, (2, 1, 1, 64)) == (2, 1, 1, 64)
    with pytest.raises(ValueError, match="norm scale of the big_vision layout has the shape"):
        BY_SCHEME["big_vision"].restore(TensorKind.SCALE, np.ones((2, 1, 1, 64), np.float32))


@every_layout
def test_logits_are_restored_within_one_unit_in_the_last_place(layout: Layout, tensors) -> None:
    for parameter in parameters(SMALL):
        source = tensors[parameter.names["npz"]]
        back = layout.restore(parameter.kind, layout.store(parameter, source, "logits"), "logits")
        assert (np.abs(back - source) <= np.spacing(np.abs(source))).all()
        if parameter.kind is not TensorKind.KERNEL:
            assert back.tobytes() == source.tobytes()


@given(axes=st.permutations(range(4)), array=hnp.arrays(np.float32, hnp.array_shapes(min_dims=4, max_dims=4)))
def test_any_permutation_is_undone(axes: list[int], array: np.ndarray) -> None:
    form = Form(tuple(axes))
    assert form.restore(form.store(array)).tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1, 300, 600), (3, 3, 33, 1030), (7, 7, 3, 512), (20, 20, 2, 3), (2, 2, 0, 4)])
def test_kernels_larger_than_a_tile_come_back(shape: tuple[int, ...], dtype: type) -> None:
    array = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    form = Form((3, 2, 0, 1))
    assert form.restore(array.transpose(3, 2, 0, 1)).tobytes() == array.tobytes()


def test_both_exactnesses_are_one_function_of_the_kernel() -> None:
    """(10w - 10m) / sqrt(100v + 1e-8) is (w - m) / sqrt(v + 1e-10)."""
    kernel = np.random.default_rng(0).normal(0, 1e-4, (3, 3, 8, 4))
    root = Parameter("root/conv/kernel", TensorKind.KERNEL, kernel.shape, {})

    def standardised(exact: str) -> np.ndarray:
        stored = LAYOUTS["transformers"].store(root, kernel, exact)
        mean, variance = (f(stored, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.var))
        return (stored - mean) / np.sqrt(variance + STANDARDIZATION_EPSILON[exact])

    np.testing.assert_allclose(standardised("logits"), standardised("bits"), rtol=1e-12)
