"""BitImageProcessor: pictures → pixel values, with the arithmetic of transformers' ``BitImageProcessorPil``.

    PIL, NumPy or torch, one or many → (C, H, W) arrays, RGB → resized by Pillow, centre-cropped, rescaled, normalised
    → {"pixel_values": (N, C, H, W)}

Needs NumPy and Pillow; PyTorch only where tensors come in or are asked for.
"""

import copy
import os
from collections import UserDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypedDict, Unpack, overload

import numpy as np
import numpy.typing as npt
import PIL.Image

from bit_ref.hub import Place, PushToHub, make_folder, read_json, require_hub_options, to_json, write_text
from bit_ref.image_transforms import as_array, pad, process
from bit_ref.pictures import load_image

if TYPE_CHECKING:
    import torch

    Picture = str | os.PathLike[str] | PIL.Image.Image | npt.NDArray[Any] | torch.Tensor
    Pictures = Picture | Sequence[Picture] | Sequence[Sequence[Picture]]

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


class SizeDict(dict[str, int]):
    """A size, whose values are attributes as well; None for a key that it does not have."""

    def __getattr__(self, name: str) -> int | None:
        if not any(name in keys for keys in SIZE_KEYS):
            raise AttributeError(name)
        return self.get(name)


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
    """A dictionary whose values are attributes as well; with a ``tensor_type``, see ``convert_to_tensors``."""

    def __init__(self, data: Mapping[str, Any] | None = None, tensor_type: str | None = None) -> None:
        super().__init__(data)
        self.convert_to_tensors(tensor_type)

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

        Pictures are PIL images of any mode, paths of image files, their URLs or their content in base64, or arrays and
        tensors (H, W, C) or (C, H, W). A file is turned as its EXIF orientation says; a PIL image is taken as it is, as
        by transformers (``bit_ref.load_image`` turns it). Pixel values are (C, H, W) float32. Options replace the
        processor's own for this call. Raises TypeError for what is no picture and for an unknown option, ValueError for
        pictures and options that do not go together, OSError for a file that cannot be read or fetched, and
        huggingface_hub's StrictDataclassFieldValidationError for an option of another type.
        """
        from huggingface_hub.dataclasses import validate_typed_dict

        validate_typed_dict(ImageOptions, dict(kwargs))  # type: ignore[type-var]  # its bound leaves out total=False
        options = _standard({**{name: getattr(self, name) for name in ImageOptions.__annotations__}, **kwargs})
        _check(options)
        pictures = [as_array(picture, options) for picture in _flat(images)]
        pixel_values = [process(array, options) for array in pictures]
        if options["do_pad"]:
            pixel_values = pad(pixel_values, options["pad_size"])
        return BatchFeature({"pixel_values": pixel_values}, options["return_tensors"])

    def to_dict(self) -> dict[str, Any]:
        """The options that are set, and ``image_processor_type``."""
        content = copy.deepcopy(self.__dict__)
        if not content["default_to_square"]:
            del content["default_to_square"]
        content = {k: v for k, v in content.items() if v is not None or getattr(type(self), k, None) is not None}
        return {**content, "image_processor_type": type(self).__name__}

    def to_json_string(self) -> str:
        return to_json(self.to_dict())

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        write_text(Path(json_file_path), self.to_json_string())

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> Self:
        return cls.from_dict(read_json(Path(json_file)))

    @property
    def backend(self) -> str:
        """The library that resizes."""
        return "pil"

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Pictures for paths, URLs and base64 texts, in lists or alone; what is a picture already stays as it is."""
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(each) for each in image_url_or_urls]
        return load_image(image_url_or_urls) if isinstance(image_url_or_urls, str) else image_url_or_urls

    @overload
    @classmethod
    def from_dict(
        cls, image_processor_dict: Mapping[str, Any], *, return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_dict(
        cls, image_processor_dict: Mapping[str, Any], *, return_unused_kwargs: Literal[False] = False, **kwargs: Any
    ) -> Self: ...

    @classmethod
    def from_dict(
        cls, image_processor_dict: Mapping[str, Any], *, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        """A processor of ``image_processor_dict`` in which ``kwargs`` replace what they name.

        With ``return_unused_kwargs=True``, also the ``kwargs`` that no processor has; otherwise they are ignored.
        """
        known = {*ImageOptions.__annotations__, *image_processor_dict}
        processor = cls(**{**image_processor_dict, **{key: value for key, value in kwargs.items() if key in known}})
        unused = {key: value for key, value in kwargs.items() if key not in known}
        return (processor, unused) if return_unused_kwargs else processor

    @classmethod
    def get_image_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The content of a processor's file, and the arguments that do not say where it is."""
        name = kwargs.pop("image_processor_filename", PROCESSOR_FILE)
        place = Place.take(pretrained_model_name_or_path, kwargs)
        file = Path(place.name) if Path(place.name).is_file() else place.find(name)
        return read_json(file), kwargs

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
        content, kwargs = cls.get_image_processor_dict(pretrained_model_name_or_path, **kwargs)
        processor, unused = cls.from_dict(content, return_unused_kwargs=True, **kwargs)
        return (processor, unused) if return_unused_kwargs else processor

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **hub_options: Any,
    ) -> list[str]:
        """Write ``preprocessor_config.json`` into the folder, which is made where needed; its path is returned."""
        require_hub_options(hub_options)
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


def _size(size: Any, is_square: bool, name: str) -> SizeDict:
    """A size as its keys: see ``ImageOptions``."""
    if isinstance(size, int):
        return SizeDict({"height": size, "width": size} if is_square else {"shortest_edge": size})
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return SizeDict(height=size[0], width=size[1])
    if not isinstance(size, Mapping) or frozenset(size) not in SIZE_KEYS:
        keys = " or ".join("+".join(sorted(keys)) for keys in SIZE_KEYS)
        raise ValueError(f"{name} must have one of the following set of keys: {keys}; got {size}")
    return SizeDict(size)


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
        return [load_image(images)]
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
