"""Addresses of files: what may be fetched, and where from.

gs://, tfhub.dev, https:// → ``fetchable()`` → what the cache knows a file by → ``mirrored()`` → what is asked
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from converters.errors import UsageError

BUCKETS = "https://storage.googleapis.com"
TFHUB = re.compile(r"https?://(?:www\.)?tfhub\.dev/", re.IGNORECASE)
MIRRORS = {"BIT_CONVERT_MIRROR": re.compile(re.escape(f"{BUCKETS}/bit_models/")), "BIT_CONVERT_TFHUB_MIRROR": TFHUB}
"""Environment variables, and the beginnings of addresses that their values replace."""
OFFLINE = ("BIT_CONVERT_OFFLINE", "HF_HUB_OFFLINE")


def is_offline(asked: bool = False) -> bool:
    """Whether nothing may be asked of a network: by an option, or by one of the environment's variables."""
    return asked or any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in OFFLINE)


def endpoint() -> str:
    """The Hub's address."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def fetchable(url: str) -> str:
    """The http(s) address of a file that is named as ``gs://bucket/path``, on tfhub.dev, or as http(s) already.

    A module of tfhub.dev is a .tar.gz (tensorflow.org/hub/hosting). Raises UsageError for any other scheme.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise UsageError("not a well-formed URL to fetch a file from. Check it.") from error
    if parts.scheme == "gs" and parts.netloc and parts.path.strip("/"):
        return f"{BUCKETS}/{parts.netloc}{quote(unquote(parts.path))}"
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"{url}: not an address to fetch a file from. Give an https:// or gs:// URL.")
    if TFHUB.match(url) and "tf-hub-format" not in parts.query:
        return urlunsplit(parts._replace(query="tf-hub-format=compressed"))
    return url


def mirrored(address: str) -> str:
    """The address to ask instead, where the environment names a mirror: http(s)://, gs:// or file://.

    Raises UsageError for a mirror of another kind.
    """
    for variable, original in MIRRORS.items():
        mirror = os.environ.get(variable, "").strip()
        if mirror and (found := original.match(address)):
            place = mirror.rstrip("/") + "/" + address[found.end() :]
            if place.startswith("file:///"):
                return place.partition("?")[0]
            try:
                return fetchable(place)
            except UsageError:
                raise UsageError(
                    f"{variable}: not an http(s)://, gs:// or file:/// address. Change or unset it."
                ) from None
    return address


def without_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """The URL without user and password, and these."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    name, _, password = user.partition(":")
    return urlunsplit(parts._replace(netloc=host)), (unquote(name), unquote(password))


def file_name(url: str) -> str:
    """The last part of a URL's path as a plain file name."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2])
    return name.lstrip(".")[-100:] or "download"
