"""The signature of a folder: model.sig, made and verified offline by the OpenSSF's library model-signing.

files, private key → ``sign()`` → model.sig: a bundle of sigstore around a statement of in-toto, the sha256 of each file
model.sig, files, public key → ``fault()`` → why it does not hold, or nothing

Signing with an identity instead of a key is ``keyless.py``'s.

The library is imported to sign and to verify (``bit-convert[sign]``); what a signature says is read without it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import CheckpointError, UsageError
from converters.files import SIGNATURE, fsync, parse_json, read_json, sha256
from converters.placing import temporary_folder, workspace

if TYPE_CHECKING:
    from model_signing import signing
    from model_signing.hashing import Config

CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""The curves that model-signing takes: P-256, P-384 and P-521."""
PREDICATE = "https://model_signing/signature/v1.0"


@dataclass(frozen=True)
class Signature:
    """The claims of a model.sig; whether they hold, ``fault()`` tells."""

    files: Mapping[str, str]
    """Name → sha256."""
    key: str
    """The sha256 of the public key in PEM, hexadecimal; empty where an identity signed, with a certificate."""

    @property
    def is_keyless(self) -> bool:
        return not self.key


def read(path: Path) -> Signature:
    """Reads the claims of a signature by a key or an identity. Raises CheckpointError where it is none."""
    content = read_json(path)
    try:
        statement = parse_json(base64.b64decode(content["dsseEnvelope"]["payload"], validate=True))
        resources = statement["predicate"]["resources"]
        files = {each["name"]: each["digest"] for each in resources if each["algorithm"] == "sha256"}
        material = content["verificationMaterial"]
        key = "" if "certificate" in material else material["publicKey"]["hint"]
        is_whole = len(files) == len(resources) and statement["predicateType"] == PREDICATE
        if not (is_whole and all(isinstance(text, str) for text in (key, *files, *files.values()))):
            raise ValueError
        if not key and not isinstance(material["certificate"]["rawBytes"], str):
            raise ValueError
    except (ValueError, TypeError, LookupError):
        raise CheckpointError(f"{path}: no signature that model-signing made. Remove it.") from None
    return Signature(files, key)


def changed(signature: Signature, files: Mapping[str, Path]) -> str:
    """The first thing that a signature says of files and that is not so; nothing where all is."""
    for name, digest in signature.files.items():
        if name not in files:
            return f"{name!r} is missing"
        if sha256(files[name]) != digest:
            return f"{name} is another file"
    return ""


def by_identity(path: Path, files: Mapping[str, Path]) -> Signature | None:
    """The signature of these files that an identity made, as far as can be told without asking sigstore; None where
    there is none."""
    try:
        signed = read(path)
    except CheckpointError:
        return None
    return signed if signed.is_keyless and not changed(signed, files) else None


def sign(folder: Path, names: Collection[str], key: Path) -> bool:
    """Signs these files of a finished folder; whether it did: a signature of them by this key that holds is kept.

    Raises UsageError as ``public_half`` does, and where the folder cannot be written.
    """
    files = {name: folder / name for name in names}
    if not fault(folder / SIGNATURE, files, public_half(key)) and set(read(folder / SIGNATURE).files) == set(files):
        return False
    from model_signing import signing

    write(folder, files, signing.Config().use_elliptic_key_signer(private_key=key))
    return True


def write(folder: Path, files: Mapping[str, Path], signer: signing.Config) -> None:
    """Puts the signature of these files into their folder, whole."""
    with workspace(folder) as made, _links(files, folder.resolve().name) as links:
        signer.set_hashing_config(_hashing()).sign(links, made / SIGNATURE)
        fsync(made / SIGNATURE)
        (made / SIGNATURE).replace(folder / SIGNATURE)
    fsync(folder)


def fault(path: Path, files: Mapping[str, Path], public: bytes) -> str:
    """Why a signature does not hold for ``files`` and a public key in PEM; nothing where it does.

    Files that it does not name are left alone. Raises UsageError where the library is not installed.
    """
    require()
    from model_signing import verifying

    try:
        signature = read(path)
    except CheckpointError as error:
        return str(error) if path.is_file() else "there is none"
    if signature.is_keyless:
        return "it was made with an identity, not with a key"
    if signature.key != hashlib.sha256(public).hexdigest():
        return f"it was made with another key, sha256 {signature.key[:16]}"
    with _links({name: files[name] for name in signature.files if name in files}) as links:
        key = links.with_name("key.pub")
        key.write_bytes(public)
        config = verifying.Config().use_elliptic_key_verifier(public_key=key).set_hashing_config(_hashing())
        try:
            config.verify(links, path)
        except Exception:  # whatever the library raises about a foreign file
            return changed(signature, files) or "what it says was not signed with this key"
    return ""


def public_half(key: Path) -> bytes:
    """The public key, in PEM, of a private key in a PEM file.

    Raises UsageError where the file holds none that can sign, or the library is not installed.
    """
    require()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    def load(content: bytes) -> object:
        return load_pem_private_key(content, None).public_key()

    remedy = f"Make one: openssl ecparam -name prime256v1 -genkey -noout -out {key.name}"
    try:
        return _public_key(key, "private", load, remedy)
    except TypeError:
        raise UsageError(f"{key}: is encrypted. Give --sign-key a key without a password.") from None


def public_key(key: Path) -> bytes:
    """The public key of a PEM file, in PEM. Raises UsageError as ``public_half`` does."""
    require()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    remedy = f"A private key's is made with: openssl ec -in KEY -pubout -out {key.name}"
    return _public_key(key, "public", load_pem_public_key, remedy)


def _public_key(key: Path, kind: str, load: Callable[[bytes], object], remedy: str) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    found: object = None
    with suppress(OSError, ValueError, UnsupportedAlgorithm):
        found = load(key.read_bytes())
    if not isinstance(found, EllipticCurvePublicKey) or found.curve.name not in CURVES:
        raise UsageError(f"{key}: holds no {kind} key of P-256, P-384 or P-521 in PEM.\n{remedy}")
    return found.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _hashing() -> Config:
    """The library's defaults, but for links: in the Hub's cache every file is one, the signature too."""
    from model_signing import hashing

    config = hashing.Config().use_file_serialization(allow_symlinks=True).set_allow_symlinks(True)
    return config.set_ignored_paths(paths=[SIGNATURE])


@contextmanager
def _links(files: Mapping[str, Path], name: str = "model") -> Iterator[Path]:
    """A folder of these files and no others, for the library, which takes whole folders."""
    with temporary_folder("bit-convert-") as temporary:
        folder = temporary / name
        folder.mkdir()
        for file, path in files.items():
            (folder / file).symlink_to(path.resolve())
        yield folder


def require() -> None:
    """Raises UsageError where the library is not installed."""
    try:
        import model_signing  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"signatures need the library model-signing ({error}). Install it with pip install 'bit-convert[sign]'."
        ) from error
