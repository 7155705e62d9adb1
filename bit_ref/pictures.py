"""Pictures from a path, a URL, base64 text or a PIL image: upright, in RGB, as transformers' ``load_image`` has them.

Needs Pillow; a URL huggingface_hub, too, whose client follows the proxies of the environment.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
from urllib.parse import urlsplit

import PIL.Image
import PIL.ImageOps

LARGEST = 64 << 20
"""Bytes of a picture that is fetched; photographs have some megabytes."""
PATIENCE = 30.0
"""Seconds without an answer, or without anything new of it, after which a server is given up."""
OFFLINE = ("BIT_CONVERT_OFFLINE", "HF_HUB_OFFLINE")

Source = str | os.PathLike[str] | PIL.Image.Image


def load_image(image: Source, timeout: float | None = None) -> PIL.Image.Image:
    """A picture in RGB, turned as its EXIF orientation says.

    ``image`` is a PIL image, the path of an image file, an http(s) URL, or the content of a file in base64, with
    ``data:image/…;base64,`` before it or without. ``timeout`` is that of a server, in seconds.

    Raises TypeError for what is none of these, ValueError for a text that is none, OSError where no picture can be
    read or fetched, or where it is larger than 64 MiB.
    """
    if isinstance(image, PIL.Image.Image):
        return _upright(image)
    if not isinstance(image, (str, os.PathLike)):
        raise TypeError(f"a picture is a PIL image, a path, a URL or a base64 text, not {type(image)}")
    name, file = _located(image, timeout)
    try:
        with PIL.Image.open(file) as opened:
            return _upright(opened)
    except PIL.UnidentifiedImageError as error:
        if name is None:
            raise ValueError(_no_source(image)) from error
        raise PIL.UnidentifiedImageError(f"{name} is no picture in a format that Pillow reads") from error
    except Exception as error:  # Pillow's readers raise errors of many kinds for what is damaged, or too large
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise OSError(f"{name or 'the picture in base64'} cannot be read: {error or type(error).__name__}") from error


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    return PIL.ImageOps.exif_transpose(picture).convert("RGB")


def _located(image: str | os.PathLike[str], timeout: float | None) -> tuple[str | None, str | io.BytesIO]:
    """The picture's name for a message, None for base64, and its file, or the content of one."""
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return _without_secrets(image), io.BytesIO(_fetched(image, timeout or PATIENCE))
    if os.path.isfile(image):  # which a text that is too long for a path is not, either
        return os.fspath(image), os.fspath(image)
    try:
        return None, io.BytesIO(_decoded(os.fspath(image)))
    except (binascii.Error, ValueError) as error:
        raise ValueError(_no_source(image)) from error


def _decoded(text: str) -> bytes:
    if text.startswith("data:image/"):
        text = text.partition(",")[2]
    return base64.decodebytes(text.encode())


def _fetched(url: str, timeout: float) -> bytes:
    """The content at a URL. Raises OSError, naming the URL without user, password and query."""
    address = _without_secrets(url)
    if any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in OFFLINE):
        raise OSError(f"{address}: not fetched, since {' or '.join(OFFLINE)} forbids it")
    from huggingface_hub import get_session

    content = bytearray()
    try:
        with get_session().stream("GET", url, follow_redirects=True, timeout=timeout) as answer:
            answer.raise_for_status()
            if {"https"} < {urlsplit(str(each.url)).scheme for each in (*answer.history, answer)}:
                raise ValueError("it leads from https to unprotected http")
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > LARGEST:
                    break
    except Exception as error:  # the client's errors are httpx's or httpx2's, as huggingface_hub has it
        raise OSError(f"{address}: could not be fetched: {_without_addresses(error)}") from error
    if len(content) > LARGEST:
        raise OSError(f"{address}: more than {LARGEST >> 20} MiB, which no photograph has: fetch it by hand")
    return bytes(content)


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _without_addresses(error: Exception) -> str:
    """The fault in one line, without a URL, which may have a password in it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"the server answers with status {status}"
    text = str(error).partition("\n")[0]
    return text if text and "://" not in text else type(error).__name__


def _no_source(source: str | os.PathLike[str]) -> str:
    text = os.fspath(source)
    text = text if len(text) <= 80 else text[:77] + "…"
    return f"Incorrect image source: {text} is no image file, http(s) URL or base64"
