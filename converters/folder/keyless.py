"""Signing with an identity instead of a key: sigstore's public service certifies who signs, for some minutes.

    identity (a CI job's, a token's, or of a sign-in by browser) → sigstore, asked through model-signing → model.sig

Who the identity is of, and when it signed, is kept in a public log. This asks the network; a key does not.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from converters.download.addresses import is_offline
from converters.errors import BitConvertError, HubError, Scope, UsageError
from converters.files import SIGNATURE
from converters.folder import signature
from converters.placing import UNWRITABLE
from converters.redaction import one_line, remember_secret

TOKEN = "SIGSTORE_IDENTITY_TOKEN"
"""The variable that sigstore's own command takes an identity's token from."""
REMEDY = (
    f"It is a CI job's OpenID token (GitHub: permissions: id-token: write), ${TOKEN}'s, or that of a sign-in from a "
    "terminal; or sign with a key: --sign-key FILE."
)

_STDOUT = threading.Lock()
"""Held while stdout is stderr, in the whole process: of two threads, one would leave it so."""


def refuse_without_identity(offline: bool) -> None:
    """Raises UsageError where nothing can be signed: no identity is in sight, no network is to be asked, or the library
    is not installed."""
    signature.require()
    if is_offline(offline):
        raise UsageError("--sign asks sigstore, over the network. Leave out --offline, or sign with --sign-key FILE.")
    with _told("nothing was done"):
        from sigstore.oidc import IdentityToken, detect_credential

        if token := _token():
            IdentityToken(token)  # refuses one that has expired
        elif not sys.stdin.isatty() and detect_credential() is None:
            raise UsageError(f"--sign needs an identity, and none was found.\n{REMEDY}")


def sign(folder: Path, names: Collection[str]) -> bool:
    """Signs these files of a finished folder; whether it did: a signature of them by an identity is kept.

    Raises UsageError without an identity, and HubError where sigstore cannot be reached or refuses.
    """
    files = {name: folder / name for name in names}
    signed = signature.by_identity(folder / SIGNATURE, files)
    if signed is not None and set(signed.files) == set(files):
        return False
    with _told(f"{folder}: is there, unsigned"), _STDOUT, redirect_stdout(sys.stderr):
        from model_signing import signing

        signer = signing.Config().use_sigstore_signer(use_ambient_credentials=True, identity_token=_token())
        signature.write(folder, files, signer)
    return True


def _token() -> str | None:
    token = os.environ.get(TOKEN) or None
    if token is not None:
        remember_secret(token)
    return token


@contextmanager
def _told(state: str) -> Iterator[None]:
    """Says in plain words what sigstore's libraries raise, whose errors come from many others."""
    try:
        yield
    except (BitConvertError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise
        from sigstore.oidc import ExpiredIdentity, IdentityError

        why = one_line(error, 160) or one_line(error.__cause__ or "", 160) or type(error).__name__
        if isinstance(error, IdentityError | ExpiredIdentity):
            raise UsageError(f"--sign: the identity was not accepted: {why} ({state}).\n{REMEDY}") from error
        raise HubError(
            f"--sign: sigstore could not be reached, or refused: {why} ({state}).\n"
            "Check the network, and run it again; or sign with --sign-key FILE.",
            Scope.PASSING,
        ) from error
