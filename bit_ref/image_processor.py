"""BitImageProcessor: pictures → pixel values, with the arithmetic of transformers' ``BitImageProcessorPil``.

    PIL, NumPy or torch, one or many → (C, H, W) arrays, RGB → resized by Pillow, centre-cropped, rescaled, normalised
    → {"pixel_values": (N, C, H, W)}

Needs NumPy and Pillow; PyTorch only where tensors come in or are asked for.
"""

import copy
import logging
import math
import os
from collections import UserDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypedDict, Unpack, overload

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from bit_ref.hub import Place, PushToHub, make_folder, read_json, to_json, write_text

if TYPE_CHECKING:
    import torch

    Picture = str | os.PathLike[str] | PIL.Image.Image | npt.NDArray[Any] | torch.Tensor
    Pictures = Picture | Sequence[Picture] | Sequence[Sequence[Picture]]

Array = npt.NDArray[Any]
Size = Mapping[str, int]

PROCESSOR_FILE = "preprocessor_config.json"

SIZE_KEYS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            {"height", "width"},
            {"shortest_edge"},
            {"shortest_edge", "longest_edge"},
            {"longest_edge"},
            {"max_height", "max_width"},
            {"min_pixels", "max_pixels"},
        ),
    )
)
"""The keys that a size can have together."""

logger = logging.getLogger(__name__)


class ImageOptions(TypedDict, total=False):
    """The options of a processor, and again of each call; their types are checked as they are annotated here."""

    do_convert_rgb: bool | None
    do_resize: bool | None
    size: int | list[int] | tuple[int, ...] | dict[str, int] | None
    """``shortest_edge`` keeps the proportions, with ``longest_edge`` as a limit; ``height`` and ``width`` do not;
    ``max_height`` and ``max_width`` are a box to fit into. An int is the shortest edge, a pair height and width."""
    default_to_square: bool | None
    """Whether an int is a square instead."""
    crop_size: int | list[int] | tuple[int, ...] | dict[str, int] | None
    resample: Any
    """Pillow's filter, by number or ``PIL.Image.Resampling``; torchvision's ``InterpolationMode`` as well."""
    do_rescale: bool | None
    rescale_factor: float | int | None
    do_normalize: bool | None
    image_mean: float | int | list[float | int] | tuple[float | int, ...] | None
    image_std: float | int | list[float | int] | tuple[float | int, ...] | None
    do_pad: bool | None
    pad_size: int | list[int] | tuple[int, ...] | dict[str, int] | None
    do_center_crop: bool | None
    data_format: str | None
    """Taken and ignored, as in transformers: pixel values are (C, H, W)."""
    input_data_format: str | None
    """The order of an array's axes: "channels_first", "channels_last", or None to find the axis of 1, 3 or 4."""
    device: Any
    return_tensors: str | None
    """The result's type: None for a list of arrays, "np" for an array, "pt" for a tensor."""
    disable_grouping: bool | None
    image_seq_length: int | None


class BatchFeature(UserDict[str, Any]):
    """A dictionary whose values are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        if name == "data" or name not in self.data:  # data itself is missing while a copy is made
            raise AttributeError(name)
        return self.data[name]

    def __getitem__(self, name: str) -> Any:
        if not isinstance(name, str):
            raise KeyError("Indexing with integers is not available: images are in ['pixel_values']")
        return self.data[name]

    def convert_to_tensors(self, tensor_type: str | None = None) -> Self:
        """Lists of arrays → arrays ("np") or tensors ("pt"). Raises ValueError where shapes differ."""
        if tensor_type is None:
            return self
        if tensor_type not in ("np", "pt"):
            raise ValueError(f"{tensor_type} is not a valid TensorType, please select one of ['pt', 'np']")
        for name, value in self.data.items():
            converted: Any
            try:
                converted = np.array(value)
            except ValueError as error:
                raise ValueError(
                    f"Unable to convert output '{name}' to tensor, since its images have different shapes: {error}; "
                    "let do_center_crop or do_pad make them alike, or set return_tensors=None"
                ) from error
            if tensor_type == "pt":
                import torch

                converted = torch.from_numpy(converted)
            self.data[name] = converted
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """``Tensor.to`` for every tensor; a dtype is for those of floating point."""
        import torch

        for name, value in self.data.items():
            if not isinstance(value, torch.Tensor):
                continue
            device = kwargs.get("device", next((a for a in args if not isinstance(a, torch.dtype)), None))
            self.data[name] = value.to(*args, **kwargs) if value.is_floating_point() else value.to(device=device)
        return self


class BitImageProcessor(PushToHub):
    """Pictures → ``pixel_values``; see ``ImageOptions``.

    The defaults are transformers'. BiT's own models want ``size={"height": …, "width": …}``, ``resample=2`` (bilinear)
    and mean and std 0.5; converted folders say so themselves.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    do_convert_rgb: Any = True
    do_resize: Any = True
    size: Any = {"shortest_edge": 224}  # noqa: RUF012  # each processor has a copy
    default_to_square: Any = False
    crop_size: Any = {"height": 224, "width": 224}  # noqa: RUF012
    resample: Any = PIL.Image.Resampling.BICUBIC
    do_rescale: Any = True
    rescale_factor: Any = 1 / 255
    do_normalize: Any = True
    image_mean: Any = (0.48145466, 0.4578275, 0.40821073)
    image_std: Any = (0.26862954, 0.26130258, 0.27577711)
    do_pad: Any = None
    pad_size: Any = None
    do_center_crop: Any = True
    data_format: Any = None
    input_data_format: Any = None
    device: Any = None
    return_tensors: Any = None
    disable_grouping: Any = None
    image_seq_length: Any = None

    def __init__(self, **kwargs: Any) -> None:
        """Keyword arguments that are no option are kept as attributes, and saved. Raises ValueError for a bad size."""
        for key in ("feature_extractor_type", "image_processor_type", "processor_class"):
            kwargs.pop(key, None)
        defaults = {name: copy.deepcopy(getattr(type(self), name)) for name in ImageOptions.__annotations__}
        for name in kwargs:
            if name not in defaults and hasattr(type(self), name):
                raise ValueError(f"{name} cannot be a key of {PROCESSOR_FILE}: the processor has a method of that name")
        self.__dict__.update(_standard({**defaults, **kwargs}))

    def __call__(self, images: "Pictures", **kwargs: Unpack[ImageOptions]) -> BatchFeature:
        return self.preprocess(images, **kwargs)

    def preprocess(self, images: "Pictures", **kwargs: Unpack[ImageOptions]) -> BatchFeature:
        """One picture, a batch as an array (N, …), a list, or a list of lists → ``pixel_values`` of all of them.

        Pictures are PIL images of any mode, paths of image files, or arrays and tensors (H, W, C) or (C, H, W). Pixel
        values are (C, H, W) float32. Options replace the processor's own for this call. Raises TypeError for what is
        no picture and for an unknown option, ValueError for pictures and options that do not go together, and
        huggingface_hub's StrictDataclassFieldValidationError for an option of another type.
        """
        from huggingface_hub.dataclasses import validate_typed_dict

        validate_typed_dict(ImageOptions, dict(kwargs))  # type: ignore[type-var]  # its bound leaves out total=False
        options = _standard({**{name: getattr(self, name) for name in ImageOptions.__annotations__}, **kwargs})
        _check(options)
        pictures = [_as_array(picture, options) for picture in _flat(images)]
        pixel_values = [_process(array, options) for array in pictures]
        if options["do_pad"]:
            pixel_values = _pad(pixel_values, options["pad_size"])
        return BatchFeature({"pixel_values": pixel_values}).convert_to_tensors(options["return_tensors"])

    def to_dict(self) -> dict[str, Any]:
        """The options that are set, and ``image_processor_type``."""
        content = copy.deepcopy(self.__dict__)
        if not content["default_to_square"]:
            del content["default_to_square"]
        content = {k: v for k, v in content.items() if v is not None or getattr(type(self), k, None) is not None}
        return {**content, "image_processor_type": type(self).__name__}

    def to_json_string(self) -> str:
        return to_json(self.to_dict())

    @classmethod
    def from_dict(cls, image_processor_dict: Mapping[str, Any], **kwargs: Any) -> Self:
        """A processor of ``image_processor_dict`` in which ``kwargs`` replace what they name; others are ignored."""
        known = {*ImageOptions.__annotations__, *image_processor_dict}
        return cls(**{**image_processor_dict, **{key: value for key, value in kwargs.items() if key in known}})

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[False] = False,
        **kwargs: Any,
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Reads a processor from a folder, a JSON file or the Hub; arguments as ``BitConfig.from_pretrained``."""
        place = Place.take(pretrained_model_name_or_path, kwargs)
        file = Path(place.name) if Path(place.name).is_file() else place.find(PROCESSOR_FILE)
        processor = cls.from_dict(read_json(file), **kwargs)
        unused = {key: value for key, value in kwargs.items() if not hasattr(processor, key)}
        return (processor, unused) if return_unused_kwargs else processor

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **hub_options: Any,
    ) -> list[str]:
        """Write ``preprocessor_config.json`` into the folder, which is made where needed; its path is returned."""
        folder = make_folder(save_directory)
        write_text(folder / PROCESSOR_FILE, self.to_json_string())
        self._saved(folder, push_to_hub, repo_id, hub_options)
        return [str(folder / PROCESSOR_FILE)]

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


def _standard(options: dict[str, Any]) -> dict[str, Any]:
    """Sizes as dictionaries, means and standard deviations as tuples."""
    square = {"size": bool(options["default_to_square"]), "crop_size": True, "pad_size": True}
    for name, is_square in square.items():
        if options[name] is not None:
            options[name] = _size(options[name], is_square, name)
    for name in ("image_mean", "image_std"):
        if isinstance(options[name], list):
            options[name] = tuple(options[name])
    return options


def _size(size: Any, is_square: bool, name: str) -> dict[str, int]:
    """A size as its keys: see ``ImageOptions``."""
    if isinstance(size, int):
        return {"height": size, "width": size} if is_square else {"shortest_edge": size}
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return {"height": size[0], "width": size[1]}
    if not isinstance(size, Mapping) or frozenset(size) not in SIZE_KEYS:
        keys = " or ".join("+".join(sorted(keys)) for keys in SIZE_KEYS)
        raise ValueError(f"{name} must have one of the following set of keys: {keys}; got {size}")
    return dict(size)


def _check(options: Mapping[str, Any]) -> None:
    """Raises ValueError for a step that lacks what it needs."""

    def lacks(*names: str) -> bool:
        return any(options[name] is None for name in names)

    if options["do_rescale"] and lacks("rescale_factor"):
        raise ValueError("`rescale_factor` must be specified if `do_rescale` is `True`.")
    if options["do_normalize"] and lacks("image_mean", "image_std"):
        raise ValueError("`image_mean` and `image_std` must both be specified if `do_normalize` is `True`.")
    if options["do_center_crop"] and lacks("crop_size"):
        raise ValueError("`crop_size` must be specified if `do_center_crop` is `True`.")
    if options["do_resize"] and lacks("size", "resample"):
        raise ValueError("`size` and `resample` must be specified if `do_resize` is `True`.")
    for name, does in (("crop_size", "do_center_crop"), ("pad_size", "do_pad")):
        if options[does] and options[name] is not None and "height" not in options[name]:
            raise ValueError(f"{name} must have the keys 'height' and 'width', got {options[name]}")
    if options["input_data_format"] not in (None, "channels_first", "channels_last"):
        raise ValueError(
            f"input_data_format={options['input_data_format']} is neither channels_first nor channels_last"
        )


def _flat(images: Any) -> list[Any]:
    """Every nesting of pictures → a list of them, each PIL or an array of three axes."""
    if isinstance(images, (list, tuple)):
        return [picture for nested in images for picture in _flat(nested)]
    if isinstance(images, (str, os.PathLike)):
        return [_open(images)]
    if isinstance(images, PIL.Image.Image):
        return [images]
    if not isinstance(images, np.ndarray):
        if not hasattr(images, "detach"):
            raise TypeError(f"pictures are PIL images, NumPy arrays, torch tensors or paths, not {type(images)}")
        images = images.detach().cpu().numpy()
    if images.ndim == 4:
        return list(images)
    if images.ndim != 3:
        raise ValueError(f"Could not make a list of images from an array of shape {images.shape}")
    return [images]


def _open(path: str | os.PathLike[str]) -> PIL.Image.Image:
    """An image file, upright, in RGB."""
    if not Path(path).is_file():
        raise ValueError(f"Incorrect image source: {path} is no image file; open other sources with PIL first")
    with PIL.Image.open(path) as image:
        return PIL.ImageOps.exif_transpose(image).convert("RGB")


def _as_array(picture: Any, options: Mapping[str, Any]) -> Array:
    """(C, H, W), of the picture's own dtype; three channels where ``do_convert_rgb``."""
    if isinstance(picture, PIL.Image.Image):
        array = np.array(_on_white(picture) if options["do_convert_rgb"] else picture)
        return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    array = np.moveaxis(picture, -1, 0) if _has_channels_last(picture, options["input_data_format"]) else picture
    return _to_rgb(array) if options["do_convert_rgb"] else array


def _on_white(picture: PIL.Image.Image) -> PIL.Image.Image:
    """RGB; what is transparent shows white."""
    if "A" in picture.getbands() or picture.info.get("transparency") is not None:
        picture = picture.convert("RGBA")
        picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture)
    return picture.convert("RGB")


def _has_channels_last(array: Array, given: str | None) -> bool:
    if given is not None:
        return given == "channels_last"
    first, last = (array.shape[axis] in (1, 3, 4) for axis in (0, 2))
    if first and last:
        logger.warning("shape %s has channels first or last: taken as first, see input_data_format", array.shape)
    if not first and not last:
        raise ValueError(f"Unable to infer channel dimension format: no 1, 3 or 4 channels in shape {array.shape}")
    return not first


def _to_rgb(array: Array) -> Array:
    """(1, 3 or 4, H, W) → (3, H, W); the fourth channel is opacity, over white."""
    if len(array) == 1:
        return np.repeat(array, 3, axis=0)
    if len(array) != 4:
        return array
    is_integer = np.issubdtype(array.dtype, np.integer)
    if not is_integer and not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"RGBA must be in the range [0, 1], got [{array.min()}, {array.max()}]")
    white = 255 if is_integer else 1.0
    opacity = array[3:] / white
    mixed = opacity * array[:3] + (1 - opacity) * white
    return (np.round(mixed) if is_integer else mixed).astype(array.dtype)


def _process(array: Array, options: Mapping[str, Any]) -> Array:
    """One picture, (C, H, W), through every step that is on."""
    if options["do_resize"]:
        array = _resize(array, _resized(array.shape[1:], options["size"]), options["resample"])
    if options["do_center_crop"]:
        array = _center_crop(array, options["crop_size"])
    if options["do_rescale"]:
        array = _rescale(array, options["rescale_factor"])
    if options["do_normalize"]:
        array = _normalize(array, options["image_mean"], options["image_std"])
    return array


def _resized(shape: Sequence[int], size: Size) -> tuple[int, int]:
    """Height and width after resizing."""
    height, width = shape
    if size.get("shortest_edge"):
        return _by_shortest_edge(height, width, size["shortest_edge"], size.get("longest_edge"))
    if size.get("max_height") and size.get("max_width"):
        scale = min(size["max_height"] / height, size["max_width"] / width)
        return int(height * scale), int(width * scale)
    if size.get("height") and size.get("width"):
        return size["height"], size["width"]
    raise ValueError(
        "Size must contain 'height' and 'width' keys, or 'max_height' and 'max_width', or 'shortest_edge' key. "
        f"Got {size}."
    )


def _by_shortest_edge(height: int, width: int, shortest: int, longest: int | None) -> tuple[int, int]:
    """Proportions kept, in this order of roundings: torchvision's."""
    short, long = sorted((height, width))
    wanted: float = shortest
    if longest and float(long) / float(short) * shortest > longest:
        wanted = longest * float(short) / float(long)
        shortest = round(wanted)
    if short == shortest:
        return height, width
    other = int(wanted * long / short)
    return (other, shortest) if width <= height else (shortest, other)


def _resize(array: Array, size: tuple[int, int], resample: Any) -> Array:
    """Resizes with Pillow, in uint8; values of 0 … 1 are stretched to 0 … 255 and back (float32)."""
    stretched = array.dtype != np.uint8 and _is_fraction(array)
    bytes_ = (_rescale(array, 255) if stretched else array).astype(np.uint8)
    image = PIL.Image.fromarray(bytes_[0] if len(bytes_) == 1 else np.ascontiguousarray(np.moveaxis(bytes_, 0, -1)))
    resized = np.array(image.resize((size[1], size[0]), resample=_filter(resample)))
    resized = resized[None] if resized.ndim == 2 else np.moveaxis(resized, -1, 0)
    return _rescale(resized, 1 / 255) if stretched else resized


def _is_fraction(array: Array) -> bool:
    """Whether values are 0 … 1 and not whole. Raises ValueError where they are no pixels at all."""
    whole = np.allclose(array, array.astype(int))
    limit = 255 if whole else 1
    if not (np.all(array >= 0) and np.all(array <= limit)):
        raise ValueError(
            f"The image to be converted to a PIL image contains values outside the range [0, {limit}], "
            f"got [{array.min()}, {array.max()}] which cannot be converted to uint8."
        )
    return not whole


def _filter(resample: Any) -> PIL.Image.Resampling:
    if isinstance(resample, int):
        return PIL.Image.Resampling(resample)
    try:  # torchvision's InterpolationMode has Pillow's names
        return PIL.Image.Resampling[resample.name.removesuffix("_EXACT")]
    except (AttributeError, KeyError):
        raise ValueError(f"resample={resample} is no filter of Pillow") from None


def _center_crop(array: Array, size: Size) -> Array:
    """Crops to (C, height, width); missing pixels are black, with the odd one before the image."""
    for axis, wanted in ((1, int(size["height"])), (2, int(size["width"]))):
        excess = array.shape[axis] - wanted
        if excess >= 0:
            array = array.take(range(excess // 2, excess // 2 + wanted), axis)
        else:
            around = [(0, 0)] * 3
            around[axis] = (math.ceil(-excess / 2), -excess // 2)
            array = np.pad(array, around)
    return array


def _rescale(array: Array, factor: float) -> Array:
    """Multiplied in float64, then float32."""
    return (array.astype(np.float64) * factor).astype(np.float32)


def _normalize(array: Array, mean: Any, std: Any) -> Array:
    """(x - mean) / std for each channel, in the array's precision, float32 for integers."""
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32)

    def of_channels(name: str, value: Any) -> Array:
        if isinstance(value, Collection) and len(value) != len(array):
            raise ValueError(f"{name} must have {len(array)} elements if it is an iterable, got {len(value)}")
        return np.broadcast_to(np.array(value, array.dtype), len(array))[:, None, None]

    return (array - of_channels("mean", mean)) / of_channels("std", std)


def _pad(arrays: list[Array], size: Size | None) -> list[Array]:
    """Black below and to the right, up to ``size``, else up to the largest. Raises ValueError where one is larger."""
    largest = [max((array.shape[axis] for array in arrays), default=0) for axis in (1, 2)]
    height, width = largest if size is None else (size["height"], size["width"])
    if largest[0] > height or largest[1] > width:
        raise ValueError(
            "Padding dimensions are negative. Please make sure that the `pad_size` is larger than the image size: "
            f"{height}×{width} for {largest[0]}×{largest[1]}"
        )
    return [np.pad(a, ((0, 0), (0, height - a.shape[1]), (0, width - a.shape[2]))) for a in arrays]
