"""BitImageProcessor against transformers' BitImageProcessorPil: equal pixels, bit for bit, over modes and options."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from bit_ref import BatchFeature, BitImageProcessor

MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "LA", "PA", "La", "RGBa", "I", "F", "I;16"]
SIDES = st.integers(1, 60)
EDGES = st.integers(1, 40)
SIZES = st.one_of(
    EDGES,
    st.tuples(EDGES, EDGES),
    st.fixed_dictionaries({"shortest_edge": EDGES}),
    st.fixed_dictionaries({"shortest_edge": EDGES, "longest_edge": EDGES}),
    st.fixed_dictionaries({"height": EDGES, "width": EDGES}),
    st.fixed_dictionaries({"max_height": EDGES, "max_width": EDGES}),
)
TRIPLES = st.tuples(*[st.floats(0.1, 1)] * 3)
BOOLEANS = st.booleans()
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "do_convert_rgb": BOOLEANS,
        "do_resize": BOOLEANS,
        "size": SIZES,
        "default_to_square": BOOLEANS,
        "resample": st.one_of(st.integers(0, 5), st.sampled_from(PIL.Image.Resampling)),
        "do_center_crop": BOOLEANS,
        "crop_size": st.one_of(EDGES, st.fixed_dictionaries({"height": EDGES, "width": EDGES})),
        "do_rescale": BOOLEANS,
        "rescale_factor": st.floats(1e-3, 1),
        "do_normalize": BOOLEANS,
        "image_mean": st.one_of(TRIPLES, TRIPLES.map(list), st.floats(0, 1)),
        "image_std": st.one_of(TRIPLES, TRIPLES.map(list), st.floats(0.1, 1)),
        "data_format": st.sampled_from(["channels_first", "channels_last"]),
        "input_data_format": st.sampled_from(["channels_first", "channels_last"]),
    },
)
SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def noise(shape, seed) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(mode: str, height: int, width: int, seed: int) -> PIL.Image.Image:
    """Random pixels in any mode; a palette image has colours, and for an odd seed a transparent one."""
    if mode in ("I", "I;16"):
        return PIL.Image.fromarray(noise((height, width), seed).astype(np.int32)).convert(mode)
    if mode == "F":
        return PIL.Image.fromarray(noise((height, width), seed).astype(np.float32))
    if mode in ("P", "PA"):
        image = PIL.Image.fromarray(noise((height, width, 3), seed)).quantize(16)
        if mode == "PA":
            return image.convert("PA")
        if seed % 2:
            image.info["transparency"] = 3
        return image
    image = PIL.Image.new(mode, (width, height))
    bands = len(image.getbands())
    if mode == "1":
        return PIL.Image.fromarray(noise((height, width), seed) > 127)
    shape = (height, width, bands) if bands > 1 else (height, width)
    image.frombytes(noise(shape, seed).tobytes())
    return image


def outcome(processor, images, options):
    """The pixel values, or the kind of error."""
    try:
        return processor(images, **options)["pixel_values"]
    except Exception as error:
        return type(error)


def assert_equal(images, options) -> None:
    theirs = outcome(BitImageProcessorPil(), images, options)
    ours = outcome(BitImageProcessor(), images, options)
    if isinstance(theirs, type):
        assert isinstance(ours, type), f"transformers raises {theirs}"
        if theirs in (ValueError, TypeError):  # others are accidents further down
            assert issubclass(ours, (ValueError, TypeError))
        return
    assert type(ours) is type(theirs), ours
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert our.dtype == their.dtype
        np.testing.assert_array_equal(np.asarray(our), np.asarray(their))


@given(st.sampled_from(MODES), SIDES, SIDES, st.integers(0, 9), OPTIONS)
@SLOW
def test_pictures_of_every_mode(mode, height, width, seed, options):
    assert_equal(picture(mode, height, width, seed), options)


@given(
    st.sampled_from([1, 2, 3, 4, 5]),
    SIDES,
    SIDES,
    BOOLEANS,
    st.sampled_from(
        ["uint8", "int64", "float32 of 255", "float32 of 1", "float64 of 1", "float16 of 1", "below 0", "bool"]
    ),
    OPTIONS,
)
@SLOW
def test_arrays_of_every_kind(channels, height, width, last, kind, options):
    pixels = noise((height, width, channels) if last else (channels, height, width), 3)
    array = {
        "uint8": pixels,
        "int64": pixels.astype(np.int64),
        "float32 of 255": pixels.astype(np.float32),
        "float32 of 1": pixels.astype(np.float32) / 255,
        "float64 of 1": pixels / 255,
        "float16 of 1": (pixels / 255).astype(np.float16),
        "below 0": pixels / 255 - 0.5,
        "bool": pixels > 127,
    }[kind]
    assert_equal(array, options)
    assert_equal(torch.from_numpy(array), options)


@given(OPTIONS, st.sampled_from([None, "np", "pt"]), st.sampled_from([None, {"height": 64, "width": 50}]))
@SLOW
def test_batches(options, tensors, pad_size):
    first, second = picture("RGB", 20, 31, 0), picture("RGB", 33, 17, 1)
    options = {**options, "return_tensors": tensors, "do_pad": pad_size is not None, "pad_size": pad_size}
    options.pop("input_data_format", None)
    assert_equal([first, second], options)
    assert_equal([[first], [second, first], []], options)


@pytest.mark.parametrize(
    "images",
    [
        noise((2, 3, 20, 30), 0),
        noise((2, 20, 30, 3), 0),
        torch.from_numpy(noise((2, 3, 20, 30), 0)),
        [noise((2, 3, 20, 30), 0), noise((1, 3, 20, 30), 1)],
        (noise((20, 30, 3), 0), noise((3, 20, 30), 1)),
        [],
        [[]],
    ],
    ids=lambda images: getattr(images, "shape", type(images)),
)
def test_forms_of_a_batch(images):
    assert_equal(images, {})


def test_digits_recipe():
    """Small grey arrays, three channels, stretched to a square: what the embedded checkpoint is trained with."""
    options = {"size": {"height": 32, "width": 32}, "resample": 2, "do_center_crop": False, "image_mean": [0.5] * 3}
    options |= {"image_std": [0.5] * 3}
    arrays = [np.repeat(noise((8, 8, 1), seed), 3, axis=-1) for seed in range(3)]
    ours = BitImageProcessor(**options).preprocess(arrays, return_tensors="pt")
    theirs = BitImageProcessorPil(**options).preprocess(arrays, return_tensors="pt")
    assert ours.pixel_values.dtype == torch.float32
    assert ours.pixel_values.shape == (3, 3, 32, 32)
    assert torch.equal(ours.pixel_values, theirs.pixel_values)


def test_path_of_a_file_is_opened_upright(tmp_path):
    image = picture("RGB", 20, 30, 0)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert_equal(str(tmp_path / "turned.png"), {"do_center_crop": False})
    with pytest.raises(ValueError, match="Incorrect image source"):
        BitImageProcessor()(str(tmp_path / "nothing.png"))


def test_torchvisions_filters():
    for mode in InterpolationMode:
        if mode is not InterpolationMode.NEAREST:
            ours, theirs = (
                p(resample=mode)(picture("RGB", 40, 50, 0)) for p in (BitImageProcessor, BitImageProcessorPil)
            )
            np.testing.assert_array_equal(ours.pixel_values, theirs.pixel_values)


@pytest.mark.parametrize(
    "options",
    [
        {"size": None},
        {"resample": None},
        {"image_mean": None},
        {"crop_size": None},
        {"rescale_factor": None},
        {"size": {"a": 3}},
        {"size": {"longest_edge": 20}},
        {"size": {"min_pixels": 4, "max_pixels": 400}},
        {"size": 3.5},
        {"do_resize": "yes"},
        {"image_mean": "0.5"},
        {"image_mean": (0.5, 0.5)},
        {"return_tensors": "tf"},
        {"foo": 1},
        {"do_pad": True, "pad_size": 10},
    ],
    ids=str,
)
def test_bad_options_raise_what_transformers_raises(options):
    image = picture("RGB", 20, 30, 0)
    theirs, ours = (outcome(processor(), image, options) for processor in (BitImageProcessorPil, BitImageProcessor))
    assert isinstance(theirs, type)
    assert ours is theirs


@pytest.mark.parametrize(
    "images",
    [3, None, [picture("RGB", 9, 9, 0), 3], np.zeros(3), np.zeros((9, 9)), [np.zeros((9, 9))], np.zeros((9, 9, 5))],
    ids=["number", "None", "picture and number", "vector", "matrix", "list of a matrix", "five channels"],
)
def test_what_is_no_picture_raises_what_transformers_raises(images):
    assert outcome(BitImageProcessor(), images, {}) is outcome(BitImageProcessorPil(), images, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_data_format": "channels"}, "neither channels_first nor channels_last"),
        ({"crop_size": {"shortest_edge": 9}}, "crop_size must have the keys 'height' and 'width'"),
        ({"size": (3,)}, "size must have one of the following set of keys"),
        ({"resample": "cubic"}, "no filter of Pillow"),
    ],
    ids=str,
)
def test_accidents_of_transformers_are_value_errors(options, message):
    with pytest.raises(ValueError, match=message):
        BitImageProcessor()(picture("RGB", 20, 30, 0), **options)


EMPTY = [PIL.Image.new("RGB", (0, 5)), np.zeros((3, 5, 0)), torch.zeros(2, 3, 0, 5)]


@pytest.mark.parametrize("size", [20, {"height": 20, "width": 20}, {"max_height": 20, "max_width": 20}], ids=str)
@pytest.mark.parametrize("empty", EMPTY, ids=type)
def test_picture_without_pixels_is_refused(empty, size):
    with pytest.raises(ValueError, match=r"a picture of \d×\d pixels cannot be resized"):
        BitImageProcessor()(empty, size=size)


def test_images_that_differ_in_shape_are_no_tensor():
    images = [picture("RGB", 20, 30, 0), picture("RGB", 30, 20, 0)]
    for processor in (BitImageProcessorPil(), BitImageProcessor()):
        with pytest.raises(ValueError, match="Unable to convert output 'pixel_values'"):
            processor(images, do_center_crop=False, return_tensors="np")
        assert len(processor(images, do_center_crop=False)["pixel_values"]) == 2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": 128, "crop_size": 96, "resample": 2},
        {"size": {"height": 9, "width": 8}, "do_center_crop": False, "image_mean": [0.5] * 3, "extra": {"kept": 1}},
        {"do_resize": None, "image_mean": None, "do_pad": True},
        {"default_to_square": True, "size": 64},
    ],
    ids=str,
)
def test_files_are_transformers(options, tmp_path):
    ours, theirs = BitImageProcessor(**options), BitImageProcessorPil(**options)
    assert json.loads(ours.to_json_string()) == json.loads(theirs.to_json_string())
    assert ours.save_pretrained(tmp_path) == [str(tmp_path / "preprocessor_config.json")]
    loaded = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert type(loaded) is BitImageProcessorPil
    back = BitImageProcessor.from_pretrained(tmp_path)
    assert back.to_dict() == ours.to_dict()
    assert BitImageProcessor.from_pretrained(tmp_path / "preprocessor_config.json").to_dict() == ours.to_dict()


def test_arguments_replace_the_files_keys(tmp_path):
    BitImageProcessor(note="old").save_pretrained(tmp_path)
    for kind in (BitImageProcessor, BitImageProcessorPil):
        processor, rest = kind.from_pretrained(
            tmp_path, return_unused_kwargs=True, size={"height": 3, "width": 4}, do_center_crop=False, nothing=1
        )
        assert processor.size == {"height": 3, "width": 4}
        assert not processor.do_center_crop
        assert rest["nothing"] == 1
    assert rest.keys() >= {"nothing"}


def test_arguments_that_no_processor_has_are_given_back():
    for kind in (BitImageProcessor, BitImageProcessorPil):
        processor, rest = kind.from_dict({"note": "old"}, return_unused_kwargs=True, do_resize=False, nothing=1)
        assert (processor.note, processor.do_resize) == ("old", False)
        assert rest["nothing"] == 1


def test_arrays_of_numpy_are_written():
    written = [
        kind(image_mean=np.array([0.5, 0.25, 0.5])).to_json_string()
        for kind in (BitImageProcessor, BitImageProcessorPil)
    ]
    assert json.loads(written[0]) == json.loads(written[1])


def test_calls_do_not_change_the_processor():
    processor = BitImageProcessor()
    before = processor.to_json_string()
    processor(picture("RGB", 20, 30, 0), size=10, crop_size=8, image_mean=[0.1, 0.2, 0.3])
    processor.size["shortest_edge"] = 1
    assert BitImageProcessor().to_json_string() == before


def test_features_are_attributes_and_go_to_a_dtype():
    features = BitImageProcessor()(picture("RGB", 20, 30, 0), return_tensors="pt")
    assert features["pixel_values"] is features.pixel_values
    assert dict(**features).keys() == {"pixel_values"}
    assert features.to("cpu", torch.float16).pixel_values.dtype == torch.float16
    assert features.to(torch.float64).pixel_values.dtype == torch.float64
    with pytest.raises(AttributeError):
        features.labels  # noqa: B018
    with pytest.raises(KeyError):
        features[0]


def test_features_are_made_as_those_of_transformers():
    for kind in (BatchFeature, transformers.BatchFeature):
        features = kind(data={"pixel_values": [np.zeros((3, 2, 2))]}, tensor_type="pt")
        assert features.keys() == {"pixel_values"}
        assert features.pixel_values.shape == (1, 3, 2, 2)
        assert len(kind()) == 0


def test_shape_with_channels_at_both_ends_is_said(caplog):
    BitImageProcessor()(noise((3, 20, 3), 0))
    assert "taken as first" in caplog.text
