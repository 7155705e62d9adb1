"""Text as it may reach a person or a file: without secrets, and with nothing in it that a terminal obeys.

    what the user gave → ``remember()``;  any text → ``printable()`` → text that may be shown, logged and written

Every message of an error passes through here, and so does whatever the commands print or write that a server, a file
or an address may have had a part in. What is taken out: user info, query and fragment of URLs, whole or broken; values
that are called tokens, signatures or passwords; ``Authorization`` headers and cookies; what looks like a token of the
Hub or of Kaggle; and the very secrets of this run, wherever they stand, in base64 and percent-encoding too.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus, unquote, unquote_plus

T = TypeVar("T")

HIDDEN = "***"
"""Stands where a secret stood."""
SHORTEST = 6
"""Characters of a secret that is looked for in running text and in base64: a shorter one is also a part of words."""
PASSES = 16
"""Times that a text is looked through at most: a hostile one must not cost more and more."""
ORDINARY = frozenset({"tf-hub-format", "tfhub-redirect", "download", "alt", "format", "raw", "rev", "revision", "ref"})
"""Parameters of URLs that hold no secret: their values are ordinary words."""
SECRET_VARIABLE = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|KAGGLE_KEY)$")
"""Names of environment variables."""

_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?/{2,}(?P<rest>.*)|(?P<bare>[^\s/@]+:[^\s@]*@.*)", re.DOTALL)
_URL = re.compile(
    r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]{0,20}:/{2,}|\b(?:https?|hf|gs|s3|ftps?|kaggle):/|(?<![\w/])//(?=[^\s/@]*@))"
    r"(?P<rest>[^\s<>\"`]*)"
)
_CLOSING = "'),.;:]}"
"""Characters that end a sentence rather than the address before it."""
_USER_INFO = re.compile(r"(?<=//)[^\s/@]*@")
_NESTED = re.compile(r"((?i:%3A%2F%2F))[^\s/?&]{0,300}?%40")
_WITHOUT_SCHEME = re.compile(
    r"(?:(?<![\w/.+%:-])|(?<=/)[\w.+%-]*+:)(?=:*+[\w.+%-]++:)(?:[\w.+%-]*+:)++[^\s:@/]{3,}@(?=[\w\[])"
)
"""A user and a password before a host. What is looked at from one place is not looked at from the next, so that a long
text costs as much as it has characters."""
_NAME = (
    r"(?i:x-amz-[\w-]+|x-goog-[\w-]+|(?:[\w-]*[_-])?(?:token|secret|password|passwd|pwd|api[_-]?key|access[_-]?key"
    r"(?:[_-]?id)?|secret[_-]?key|signature|credentials?|session[_-]?id|googleaccessid|awsaccesskeyid))"
)
_ASSIGNED = re.compile(rf"(?<![\w-])((?:{_NAME}|(?i:sig|policy|key-pair-id))=)[^\s&;,'\"<>}}\])]+")
_SAID = re.compile(rf"(?<![\w-])({_NAME}['\"]?:\s*['\"]?)(?![a-z]+\b)[^\s,;&'\"<>}}\])]+")
_HEADER = re.compile(r"((?i:\b(?:proxy-)?authorization|\b(?:set-)?cookie)['\"]?\s*[:=]\s*)\S.*")
_BEARER = re.compile(r"(\b(?i:bearer|token) )(?![a-z]+\b)[A-Za-z0-9._~+/=-]{6,}")
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:hf_|hf_oauth_|api_org_)(?:[A-Za-z0-9]{16,}|(?=[a-z0-9]*[A-Z])[A-Za-z0-9]{8,})[A-Za-z0-9._-]*"
    r"|KGAT_[A-Za-z0-9]{16,}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_TOKEN_IN_BYTES = re.compile(rb"(?:hf_|api_org_|KGAT_)(?:oauth_)?[A-Za-z0-9]{8,}")
_KEPT = rf"\1{HIDDEN}"
"""The first group stays, the rest of the match does not."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters but for tab and line feed; what turns the direction of text, or takes no room; halves of pairs."""

_remembered: set[str] = set()


def printable(text: object) -> str:
    """The text as it may be shown and written: ``redacted`` and ``visible``. Once more changes nothing."""
    return redacted(visible(str(text)))


def one_line(text: object, longest: int = 300) -> str:
    """A foreign text, such as a server's reason, as a part of a message: ``printable``, on one line, bounded."""
    line = " ".join(printable(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def visible(text: str) -> str:
    """The text with each character that a terminal or a reader obeys, rather than shows, as its escape: ``\\x1b``."""
    return _OBEYED.sub(_escaped, text)


def redacted(text: str) -> str:
    """The text without secrets; addresses stay recognisable: ``https://host/model.npz?…``."""
    return _redacted(text, _secrets())


def printable_values(value: T) -> T:
    """A value, all of whose texts are ``printable``: of mappings (keys too), sequences and dataclasses in it."""
    secrets = _secrets()
    return _changed(value, lambda text: _redacted(visible(text), secrets))


def redacted_values(value: T) -> T:
    """A value, all of whose texts are ``redacted``; control characters in them stay."""
    secrets = _secrets()
    return _changed(value, lambda text: _redacted(text, secrets))


def remember(given: object) -> None:
    """Keeps the secrets of an address that the user gave: whatever echoes them is redacted from now on."""
    _remembered.update(_secrets_of(str(given)))


def remember_secret(secret: str) -> None:
    """Keeps a token that is used."""
    _remembered.update(_long_enough([secret]))


def redact_chain(error: BaseException) -> None:
    """Redacts the messages of the exceptions that led to this one, which a traceback shows."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        found = pending.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        with suppress(Exception):  # an exception may be of any making; what cannot be changed stays
            found.args = tuple(printable(each) if isinstance(each, str) else each for each in found.args)
        pending += [found.__cause__, found.__context__]


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a path that is not in the file system's encoding
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _changed(value: T, change: Callable[[str], str]) -> T:
    changed: T = _mapped(value, cache(change))
    return changed


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        changed = change(value)
        return value if changed == value else changed  # a member of an enumeration stays one
    if isinstance(value, Mapping):
        return {_mapped(key, change): _mapped(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_mapped(each, change) for each in value])
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _mapped(getattr(value, f.name), change) for f in fields(value) if f.init})
    return value


def _redacted(text: str, secrets: tuple[str, ...]) -> str:
    """Returns the text without secrets. What stands together once something was taken out may be an address itself, so
    the text is looked through until nothing changes."""
    for _ in range(PASSES):
        before, text = text, _redacted_once(text, secrets)
        if text == before:
            break
    return text


def _redacted_once(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    if ":/" in text or "//" in text:
        text = _URL.sub(_bare_url, text)
    if "@" in text:
        text = _WITHOUT_SCHEME.sub(f"{HIDDEN}@", text)
    if ":" in text or "=" in text or "%" in text:
        for pattern in (_NESTED, _HEADER, _ASSIGNED, _SAID):
            text = pattern.sub(_KEPT, text)
    if "earer " in text or "oken " in text:
        text = _BEARER.sub(_KEPT, text)
    if "_" in text or "eyJ" in text:
        text = _TOKEN.sub(HIDDEN, text)
    return _BASE64.sub(lambda run: HIDDEN if _holds_secret(run[0], secrets) else run[0], text)


def _bare_url(match: re.Match[str]) -> str:
    """A URL without user info, query and fragment; what is not well-formed loses more rather than less."""
    authority, path, secret = _parts(match["rest"])
    shown = match["scheme"] + authority.rpartition("@")[2] + _USER_INFO.sub("", path)
    if not secret:
        return shown
    ending = secret[len(secret.rstrip(_CLOSING)) :]
    return shown + ("?…" if secret.startswith("?") else "") + ending


def _parts(rest: str) -> tuple[str, str, str]:
    """Splits what follows a scheme into authority, path, and query with fragment."""
    at = re.search(r"[/?#\\]", rest)
    authority, tail = (rest[: at.start()], rest[at.start() :]) if at else (rest, "")
    _, colon, port = authority.rpartition("@")[2].partition(":")
    if colon and "@" not in authority and not authority.startswith("[") and not _is_port(port):
        if "@" in tail:  # a password with one of these characters in it
            return _parts(tail.rpartition("@")[2])
        authority = f"{authority.partition(':')[0]}:{HIDDEN}"
    at = re.search(r"[?#]", tail)
    return (authority, tail[: at.start()], tail[at.start() :]) if at else (authority, tail, "")


def _is_port(text: str) -> bool:
    """Whether this stands after a host's colon by right: digits, or nothing but the end of a sentence."""
    digits = text.rstrip(_CLOSING)
    return not digits or digits.isdecimal()


def _holds_secret(run: str, secrets: Iterable[str]) -> bool:
    """Whether base64 decodes, from any of its first four characters on, to text that holds a secret."""
    if run == run.lower():  # hexadecimal digits, paths and words: base64 has capitals
        return False
    wanted = [secret.encode(errors="surrogateescape") for secret in secrets]
    letters = run.rstrip("=").replace("-", "+").replace("_", "/")
    for start in range(4):
        piece = letters[start:]
        with suppress(binascii.Error):
            found = base64.b64decode(piece + "=" * (-len(piece) % 4) if len(piece) % 4 != 1 else piece[:-1])
            if any(secret in found for secret in wanted) or _TOKEN_IN_BYTES.search(found):
                return True
    return False


def _secrets() -> tuple[str, ...]:
    """Those of this run in every form that is looked for, the longest first."""
    found = {*_remembered, *_of_environment(), *_of_login()}
    forms = {form for secret in found for form in _forms(secret)}
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield visible(secret)
    with suppress(UnicodeError):
        for encoded in (quote(secret), quote(secret, safe=""), quote_plus(secret)):
            yield encoded
            yield re.sub("%..", lambda code: code[0].lower(), encoded)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if SECRET_VARIABLE.search(name) and not value.startswith(("/", "~")):
            yield from _long_enough([value.strip()])
        elif "://" in value and "@" in value:
            yield from _secrets_of(value)


def _of_login() -> Iterator[str]:
    """The token that ``hf auth login`` left, where the Hub's client, which sends it, is in use."""
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        with suppress(OSError, ValueError, AttributeError):
            yield from _long_enough([Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8").strip()])


def _secrets_of(given: str) -> Iterator[str]:
    """Password (of user info without one, all of it), and what the query and the fragment hold."""
    word = given.partition("=")[2] if given.startswith("--") else given
    found = _ADDRESS.fullmatch(word)
    if found is None:
        return
    rest = found["rest"] or found["bare"] or ""
    user_info = _user_info(rest)
    _, colon, password = user_info.partition(":")
    yield from _long_enough(_decoded(password if colon else user_info))
    for part in re.split(r"[?#&;]", rest[len(user_info) :])[1:]:
        name, equals, value = part.partition("=")
        if equals and name.lower() not in ORDINARY:
            yield from _long_enough(_decoded(value))


def _user_info(rest: str) -> str:
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    if "@" in authority:
        return authority.rpartition("@")[0]
    port = authority.partition(":")[2]
    return rest.rpartition("@")[0] if ":" in authority and not port.isdecimal() else ""


def _decoded(value: str) -> set[str]:
    return {value, unquote(value), unquote_plus(value)}


def _long_enough(values: Iterable[str]) -> Iterator[str]:
    return (value for value in values if len(value) >= SHORTEST)
