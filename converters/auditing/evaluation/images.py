"""Image files, opened with care: any may be broken, huge, or none at all.

path → ``opened()`` → an image of Pillow, all of its pixels read
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from converters.files import is_macos_metadata, refuse_special

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that Pillow reads by itself. PostScript, which is a language, it would leave to Ghostscript."""
MAX_BYTES = 512 << 20
MAX_PIXELS = 89_478_485
"""Pixels of the largest image: Pillow warns beyond them, since a small file may unpack to any number."""
SHOWN = 100
"""Characters of an error that are kept."""
_FILTERS = threading.Lock()
"""Held while warnings are off, in the whole process: of two threads, one would leave them off."""


class UnreadableImageError(ValueError):
    """The file cannot be read as an image; the message says why, and does not name it."""


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name."""
    return path.suffix.lower() in SUFFIXES and not is_macos_metadata(path.name)


def opened(path: Path) -> Image:
    """The image, its pixels read. Raises UnreadableImageError."""
    return hashed(path)[0]


def hashed(path: Path) -> tuple[Image, str]:
    """The image, its pixels read, and the sha256 of the file. Raises UnreadableImageError.

    It is as it is stored: not turned as its EXIF says, since neither Google's evaluation nor torchvision's does that.
    """
    try:
        refuse_special(path)
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MB")
        content = path.read_bytes()
        return _decoded(content), hashlib.sha256(content).hexdigest()
    except Exception as error:  # a reader of a format may raise anything
        raise UnreadableImageError(_why(error)) from error


def _decoded(content: bytes) -> Image:
    """Raises ValueError for an image of too many pixels, and whatever Pillow raises."""
    from PIL import Image

    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
    image.load()
    return Image.fromarray(_upper_bits(np.asarray(image))) if image.mode[0] in "IF" else image


def _upper_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Pixels of 16 bits as 8; Pillow would cut off what is beyond 255. Raises ValueError for any other kind."""
    if values.dtype.kind == "f":
        raise ValueError("its pixels are fractions")
    if values.min() < 0 or values.max() >= 1 << 16:
        raise ValueError("its pixels are of 32 bits")
    return (values >> 8).astype(np.uint8)


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return "not an image" if "cannot identify image file" in text else text[:SHOWN] or type(error).__name__
