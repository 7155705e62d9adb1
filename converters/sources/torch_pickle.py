"""Reads the pickles of PyTorch's files as data: which tensor is where, and the plain values beside.

Nothing is imported, called or made of any class: a pickle is a program for a small stack machine, and this one knows
only the instructions that build dicts, lists, tuples, numbers, strings and descriptions of tensors. A name of Python's
is a string here, and what it would call is one of the few functions below.

    bytes → instructions (pickletools) → ``Reading.value()`` → plain values, Tensor
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converters.sources.base import MAX_RANK, MAX_TENSORS, listing_bound

MAX_NUMBER = 1 << 63
"""More than any size, stride or offset."""
MAX_PICKLE = listing_bound(160)
"""Bytes of a file's pickles, of which a tensor takes some 130. Those of the largest network have 60 kB, 300 kB with
Adam's state beside it."""
MAX_INSTRUCTIONS = 40 * MAX_TENSORS
"""The most that a pickle may have: a tensor with its name takes some 30."""
STORAGES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
"""PyTorch's class → the dtype's name in safetensors."""


@dataclass(frozen=True)
class TorchStorage:
    """A run of values that tensors are views of: its key in the file, dtype and number of values."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage; offset and strides count values."""

    storage: TorchStorage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Name:
    """A class or function of Python's, by module and name."""

    text: str


OPAQUE = object()
"""A value that is neither a plain one nor a tensor, such as a NumPy number's dtype."""


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, TorchStorage) or not len(shape) == len(strides) <= MAX_RANK:
        raise ValueError("a tensor without a stride for each dimension")
    if not all(map(_is_number, (offset, *shape, *strides))):
        raise ValueError("a tensor of odd numbers")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _subclass(call: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor that attributes were set on."""
    if call != Name("torch._utils _rebuild_tensor_v2"):
        raise ValueError("a tensor of a class of its own")
    return _tensor(*arguments)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_NUMBER


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for pair in pairs:
        _set(made, list(pair))
    return made


CALLS: Mapping[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": lambda data, *_: data,
    "torch._utils _rebuild_parameter_with_state": lambda data, *_: data,
    "torch._tensor _rebuild_from_type_v2": _subclass,
    "torch Size": lambda sizes: sizes,
    "torch device": lambda *where: OPAQUE,
    "collections OrderedDict": _ordered,
    "collections defaultdict": lambda factory=None: {},
    "collections Counter": lambda counts: counts,
    **dict.fromkeys(("builtins set", "__builtin__ set"), lambda items: items),
    "_codecs encode": lambda text, encoding: text,
    "numpy dtype": lambda *_: OPAQUE,
    **dict.fromkeys(("numpy.core.multiarray scalar", "numpy._core.multiarray scalar"), lambda dtype, value: OPAQUE),
}
"""The functions that files of weights and training state may call, and stand-ins; none copies what it is given."""
NAMES = {
    *CALLS,
    *(f"torch {storage}" for storage in STORAGES),
    *(f"torch {dtype}" for dtype in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")),
    "torch Tensor",
    "torch.nn.parameter Parameter",
    *(f"{module} {kind}" for module in ("builtins", "__builtin__") for kind in ("dict", "list", "int", "float", "str")),
}
"""All that it may refer to."""


LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES",
    "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
NEW: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
}
"""Instructions that put a value on the stack: the one they carry, or a new one."""


class Forbidden(ValueError):
    """A pickle that refers to an object which would have to be run to be read; ``what`` it is."""

    def __init__(self, what: str) -> None:
        super().__init__(f"it holds more than tensors and plain values ({what[:80]}), which is never opened")


class Reading:
    """The pickles at the beginning of ``content``, one after the other. Raises ValueError for anything else in them."""

    def __init__(self, content: bytes) -> None:
        if len(content) > MAX_PICKLE:
            raise ValueError(f"a pickle of {len(content)} bytes, more than any network has")
        self._stream = io.BytesIO(content)
        self._left = MAX_INSTRUCTIONS
        self.storages: dict[str, TorchStorage] = {}
        """Those that were met, by key."""

    @property
    def position(self) -> int:
        """The place where the next pickle begins."""
        return self._stream.tell()

    def value(self) -> Any:
        """Returns the value that the next pickle describes."""
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        """The stacks below the marks."""
        self._memo: dict[int, Any] = {}
        """Values that were put aside, by number."""
        try:
            for instruction, argument, _ in pickletools.genops(self._stream):
                self._left -= 1
                if self._left < 0:
                    raise ValueError(f"more than {MAX_INSTRUCTIONS} instructions")
                self._run(instruction.name, argument)
        except (IndexError, KeyError) as error:
            raise ValueError(f"a damaged pickle: {error!r}") from error
        (value,) = self._stack
        return value

    def _run(self, instruction: str, argument: Any) -> None:
        stack = self._stack
        match instruction:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _ if instruction in LITERALS:
                stack.append(argument)
            case _ if instruction in NEW:
                stack.append(NEW[instruction]())
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self._memo[len(self._memo) if argument is None else argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "MARK":
                self._below.append(stack)
                self._stack = []
            case "TUPLE":
                items = self._marked()
                self._stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                last = [stack.pop() for _ in range(int(instruction[-1]))]
                stack.append(tuple(reversed(last)))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set(stack[-1], [key, value])
            case "SETITEMS":
                items = self._marked()
                _set(self._stack[-1], items)
            case "APPEND":
                value = stack.pop()
                _extend(stack[-1], [value])
            case "APPENDS" | "ADDITEMS":
                items = self._marked()
                _extend(self._stack[-1], items)
            case "GLOBAL":
                stack.append(_name(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_name(f"{module} {name}"))
            case "REDUCE":
                arguments, called = stack.pop(), stack.pop()
                if not isinstance(called, Name) or called.text not in CALLS:
                    raise ValueError(f"it calls {shown(called)}")
                stack.append(CALLS[called.text](*arguments))
            case "BUILD":  # attributes, of an OrderedDict say: nothing of the weights
                stack.pop()
            case "BINPERSID":
                storage = _storage(stack.pop())
                if self.storages.setdefault(storage.key, storage) != storage:
                    raise ValueError(f"two storages of the key {storage.key[:40]}")
                stack.append(storage)
            case _:
                raise Forbidden(f"the instruction {instruction}")

    def _marked(self) -> list[Any]:
        """Takes what lies above the last mark; the stack below it is the stack again."""
        marked, self._stack = self._stack, self._below.pop()
        return marked


def _name(text: str) -> Name:
    if text not in NAMES:
        raise Forbidden(text)
    return Name(text)


def shown(value: Any) -> str:
    """Describes a value. A list that holds another twice, which holds another twice, … is never written out."""
    return repr(value)[:60] if isinstance(value, str | Name) else type(value).__name__


def _set(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError("items of no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int | float | None) or (isinstance(key, int) and key.bit_length() > 64):
            raise ValueError("a dict with a key that is no word and no number")
        target[key] = value


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise ValueError("items of no list")
    target.extend(items)


def _storage(identity: Any) -> TorchStorage:
    """Reads a persistent id: ``("storage", class, key, device, number of values)``, in old files with a view more."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        what = identity[0] if isinstance(identity, tuple) and identity else identity
        raise Forbidden(f"a {shown(what)}")
    _, kind, key, _, count, *view = identity
    name = kind.text.removeprefix("torch ") if isinstance(kind, Name) else ""
    whole = view in ([], [None])
    if not whole or name not in STORAGES or not isinstance(key, str) or not _is_number(count):
        raise ValueError("a storage of an unknown kind")
    return TorchStorage(key, STORAGES[name], count)
