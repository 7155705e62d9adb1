"""Reads ``pytorch_model.bin``, one file or a Hub folder's shards: weights only, never a pickled object.

zip members checked → the pickle's opcodes checked → ``torch.load(weights_only=True, mmap=True)`` → tensors
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import CheckpointError
from converters.sources.base import Array, Shape, as_float32, one_line
from converters.sources.npz import is_torch_archive
from converters.sources.shards import ShardedSource

if TYPE_CHECKING:
    import torch

WEIGHTS, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
MAX_PICKLE = 4 << 20
"""Bytes of the pickle that says which tensor is where; that of the largest network has 60 kB."""
MAX_MEMBERS = 8192
STATE_DICT_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {name}Storage" for name in ("Half", "BFloat16", "Float", "Double", "Long")),
}
"""All that the pickle of a state dict refers to. torch.load allows more, some of which reserves memory on demand."""


class TorchBinSource(ShardedSource["torch.Tensor"]):
    """``pytorch_model.bin`` of a folder, whole or in shards, or a single file that torch.save wrote.

    Raises CheckpointError, naming file and tensor, for anything broken, unsafe, not of floats or not finite.
    """

    format = "torch-bin"
    looked_for = "a model folder (pytorch_model.bin)"

    weights, index = WEIGHTS, INDEX
    schemes = ("transformers", "timm", "original")

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        if path.is_dir():
            return cls.holds(path)
        return path.name == INDEX or (head.startswith(b"PK\x03\x04") and is_torch_archive(path))

    @staticmethod
    def _load(file: Path) -> dict[str, torch.Tensor]:
        return _load(file)

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Array:
        import torch

        tensor = self._tensors[name]
        if not tensor.is_floating_point():
            raise CheckpointError(f"{self.path}: {name} holds {tensor.dtype}, not float32. Save it as float32.")
        return as_float32(tensor.detach().to(torch.float32, copy=True).numpy(), self.path, name)

    def close(self) -> None:
        self._tensors = {}


def _load(file: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        _refuse_unsafe(file)
        content: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise ValueError("it is no state dict")
        odd = next((name for name, value in content.items() if not isinstance(value, torch.Tensor)), None)
        if odd is not None:
            raise ValueError(f"{odd[:120]} is no tensor: save the model's state_dict() alone")
        if sum(tensor.numel() * tensor.element_size() for tensor in content.values()) > file.stat().st_size:
            raise ValueError("its tensors claim more bytes than the file has")
    except Exception as error:  # the unpickler of hostile bytes raises whatever it comes upon
        raise CheckpointError(f"{file}: not a file of weights alone: {one_line(error)}.\nGet the file anew.") from error
    return dict(content)


def _refuse_unsafe(file: Path) -> None:
    """Raises ValueError for packed members, or a pickle that refers to more than a state dict's parts."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        packed = any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members)
        if packed or len(members) > MAX_MEMBERS or sum(m.file_size for m in members) > file.stat().st_size:
            raise ValueError("its members are packed, or more than any network has")
        damaged = archive.testzip()
        if damaged:
            raise ValueError(f"its member {damaged[:120]} does not agree with its CRC")
        pickles = [member for member in members if member.filename.endswith(".pkl")]
        if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE:
            raise ValueError("it has not the one pickle that torch.save writes")
        for opcode, argument, _ in pickletools.genops(archive.read(pickles[0])):
            if opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4") or (
                opcode.name == "GLOBAL" and argument not in STATE_DICT_GLOBALS
            ):
                raise ValueError(
                    f"it holds more than tensors ({str(argument or opcode.name)[:60]}), which is never opened"
                )
