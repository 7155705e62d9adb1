"""What is done to good inputs. Everything is drawn from one random.Random, so that a seed repeats a run."""

from __future__ import annotations

import copy
import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 1 << 15, (1 << 16) - 1, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
           1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
JUNK: tuple[Any, ...] = (
    *NUMBERS, -1, 1.5, float("nan"), float("inf"), 10**12, 10**30, True, False, None, "", "a", "\ud800",
    "\x1b[31m", "0", "0.0",
    "1e400", "x" * 3000, "a/" * 300, "../x", "\0", [], {}, [[]], {"a": []}, [10**9], {"0": 1}, [None] * 50,
    "F32", "BF16",
)  # fmt: skip
"""Values that stand where others are expected."""


def junk(random: Random) -> Any:
    return copy.deepcopy(random.choice(JUNK))


Bytes = Callable[[bytes, Random], bytes]


def some_bytes(content: bytes, random: Random) -> bytes:
    """One to four changes anywhere: bits, bytes, numbers, pieces removed, doubled, moved or cut off."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        _change(changed, random)
    return bytes(changed)


def _change(content: bytearray, random: Random) -> None:
    place = random.randrange(len(content)) if content else 0
    end = place + random.choice((1, 2, 4, 8, 64, 512))
    match random.randrange(8):
        case 0 if content:
            content[place] ^= 1 << random.randrange(8)
        case 1 if content:
            content[place] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        case 2:
            width = random.choice((1, 2, 4, 8))
            content[place : place + width] = (random.choice(NUMBERS) % (1 << 8 * width)).to_bytes(
                width, random.choice(("little", "big"))
            )
        case 3:
            del content[place:end]
        case 4:
            content[place:place] = content[place:end]
        case 5:
            content[place:place] = random.randbytes(end - place)
        case 6:
            other = random.randrange(len(content) + 1)
            content[place:end] = content[other : other + end - place]
        case _:
            del content[random.randrange(len(content) + 1) :]


def headed(content: bytes, random: Random, size: int = 600) -> bytes:
    """Changes among the first and last bytes, where headers and directories are."""
    if random.random() < 0.5:
        return some_bytes(content[:size], random) + content[size:]
    return content[:-size] + some_bytes(content[-size:], random)


def value(content: Any, random: Random) -> Any:
    """A JSON value with one of its parts replaced, removed, doubled, renamed or moved."""
    content = copy.deepcopy(content)
    for _ in range(random.choice((1, 1, 2, 3))):
        content = _changed_part(content, random, random.randrange(5))
    return content


def _changed_part(content: Any, random: Random, depth: int) -> Any:
    if not isinstance(content, (dict, list)) or not content or depth == 0:
        return (
            junk(random)
            if not isinstance(content, (dict, list)) or random.random() < 0.3
            else _shuffled(content, random)
        )
    keys = list(content) if isinstance(content, dict) else range(len(content))
    key = random.choice(keys)
    content[key] = _changed_part(content[key], random, depth - 1)
    return content


def _shuffled(content: Any, random: Random) -> Any:
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    match random.randrange(4):
        case 0 if keys:
            content.pop(random.choice(keys))
        case 1 if keys:
            other = copy.deepcopy(content[random.choice(keys)])
            content[random.choice(keys)] = other
        case 2 if keys and isinstance(content, dict):
            content[str(junk(random))] = content.pop(random.choice(keys))
        case _ if isinstance(content, dict):
            content[str(junk(random))] = junk(random)
        case _:
            content.insert(random.randrange(len(content) + 1), junk(random))
    return content


def json_text(content: bytes, random: Random) -> bytes:
    """A JSON file: its values changed, or now and then its bytes, or nested deep."""
    match random.randrange(10):
        case 0:
            return some_bytes(content, random)
        case 1:
            levels = random.choice((10, 65, 1000, 20_000))
            return b'{"a":' * levels + content + b"}" * levels
        case _:
            return json.dumps(value(json.loads(content), random)).encode("utf-8", "surrogatepass")


def safetensors(content: bytes, random: Random) -> bytes:
    """The header changed as JSON, its length right again."""
    (length,) = struct.unpack_from("<Q", content)
    header, rest = content[8 : 8 + length], content[8 + length :]
    if random.random() < 0.2:
        return headed(content, random)
    header = json_text(header, random)
    return struct.pack("<Q", len(header)) + header + rest


def zipped(inner: Bytes) -> Bytes:
    """Members changed by ``inner``, renamed, left out, doubled or packed, in an archive that is whole again."""

    def change(content: bytes, random: Random) -> bytes:
        if random.random() < 0.3:
            return headed(content, random)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        place = random.randrange(len(members))
        name, data = members[place]
        match random.randrange(6):
            case 0:
                members[place] = (
                    str(random.choice((name.upper(), name + "/", "../" + name, "", name[:-1], "é", "a" * 2000))),
                    data,
                )
            case 1:
                members.pop(place)
            case 2:
                members.append((random.choice(members)[0], data))
            case _:
                members[place] = (name, inner(data, random))
        return zip_of(members, random)

    return change


def zip_of(members: list[tuple[str, bytes]], random: Random) -> bytes:
    buffer = io.BytesIO()
    method = random.choice((*[zipfile.ZIP_STORED] * 20, *[zipfile.ZIP_DEFLATED] * 5, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name.replace("\0", "") or "a")
            info.compress_type = method
            archive.writestr(info, data)
    return buffer.getvalue()


def npy(content: bytes, random: Random) -> bytes:
    """An npy header with parts replaced by others of Python's literals."""
    if content[:6] != b"\x93NUMPY" or random.random() < 0.3:
        return headed(content, random, 160)
    (length,) = struct.unpack_from("<H", content, 8)
    header, rest = content[10 : 10 + length].decode("latin-1"), content[10 + length :]
    parts = ("'descr'", "b'descr'", "'<f4'", "'<f8'", "'|O'", "'|V2'", "'<i8'", "[('a','<f4')]", "False",
    "True", "None", "'shape'",
             "(1,)", "(0,)", "()", "(-1,)", "9" * 30, "1e9", "'fortran_order'", "{}", "[", "(" * 40, "\\", "'",
             "lambda: 0", "2**60")  # fmt: skip
    words = ("'descr'", "'<f4'", "False", "'fortran_order'", "'shape'", "(", ")", ",", "32")
    for _ in range(random.choice((1, 1, 2))):
        header = header.replace(random.choice(words), str(random.choice(parts)), random.choice((1, -1)))
    encoded = header.encode("latin-1", "replace")
    return content[:8] + struct.pack("<H", len(encoded) % (1 << 16)) + encoded + rest


def pickled(content: bytes, random: Random) -> bytes:
    """A pickle with instructions put between others, removed, repeated or changed."""
    pieces = _instructions(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(len(pieces))
        match random.randrange(5):
            case 0:
                pieces.insert(place, random.choice(INSTRUCTIONS))
            case 1:
                pieces.pop(place)
            case 2:
                pieces[place] = random.choice(INSTRUCTIONS)
            case 3:
                pieces.insert(place, random.choice(pieces))
            case _:
                pieces[place] = some_bytes(pieces[place], random)
        pieces = pieces or [b"."]
    return b"".join(pieces)


def _instructions(content: bytes) -> list[bytes]:
    import pickletools

    starts = []
    try:
        starts = [place or 0 for _, _, place in pickletools.genops(content)]
    except ValueError:
        return [content]
    ends = [*starts[1:], len(content)]
    return [content[start:end] for start, end in zip(starts, ends, strict=True)]


INSTRUCTIONS = [
    b"(", b")", b"]", b"}", b"t", b"\x85", b"\x86", b"\x87", b"R", b"Q", b"u", b"s", b"a", b"e", b"b", b"N",
    b"\x88", b"K\x00",
    b"K\xff", b"J\xff\xff\xff\xff", b"\x8a\x10" + b"\xff" * 16, b"\x8a\xff" + b"\x7f" * 255, b"q\x00",
    b"h\x00", b"h\x63",
    b"X\x01\x00\x00\x00a", b"X\x03\x00\x00\x00\xed\xa0\x80", b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"cos\nsystem\n", b"\x8c\x02os\x8c\x06system\x93",
    b"G?\xf0\0\0\0\0\0\0", b".",
    b"\x80\x04\x95\xff\0\0\0\0\0\0\0", b"\x94", b"0", b"2", b"\x8b\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f",
    b"\x8f", b"(\x90",
    pickle.dumps({"a": [1, (2, "b")]}, 2)[2:-1],
]  # fmt: skip


def legacy_torch(content: bytes, random: Random) -> bytes:
    """The older format of torch.save, whose pickles come first."""
    return headed(content, random, 3000) if random.random() < 0.5 else pickled(content[:4000], random) + content[4000:]


def tar(content: bytes, random: Random) -> bytes:
    """A tar archive, packed or not: a header's fields changed, its checksum right again; extension headers put in."""
    packed = content[:2] == b"\x1f\x8b"
    raw = bytearray(gzip.decompress(content) if packed else content)
    headers = _tar_headers(raw)
    place = random.choice(headers)
    match random.randrange(8):
        case 0:
            return headed(content, random)
        case 1:
            raw[place:place] = _extension(random)
        case 2:
            raw[place : place + 100] = random.choice(
                (b"../x", b"/tmp/x", b"a/" * 40, b"", b"._x", b"x\xff", b"..")
            ).ljust(100, b"\0")
        case 3:
            raw[place + 156] = ord(random.choice("0123456789gxLKSVXDN\0Z"))
        case 4:
            size = random.choice(
                (b"%011o\0" % random.choice((0, 1, 511, 513, 1 << 32)), b"\x80" + random.randbytes(11), b"-1", b"zz")
            )
            raw[place + 124 : place + 136] = size.ljust(12, b"\0")
        case 5:
            del raw[place : place + 512]
        case 6:
            raw[place:place] = raw[random.choice(headers) :][:1024]
        case _:
            raw[place : place + 512] = some_bytes(bytes(raw[place : place + 512]), random)[:512].ljust(512, b"\0")
    if random.random() < 0.9 and len(raw) >= place + 512:
        raw[place + 148 : place + 156] = b" " * 8
        raw[place + 148 : place + 156] = b"%06o\0 " % sum(raw[place : place + 512])
    return gzip.compress(bytes(raw), 1, mtime=0) if packed else bytes(raw)


def _tar_headers(raw: bytearray) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(bytes(raw))) as archive:
        return [member.offset for member in archive]


def _extension(random: Random) -> bytes:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type = random.choice((b"x", b"g", b"L", b"K", b"X"))
    text = random.choice((b"path=b", b"size=%d" % random.choice(NUMBERS), b"GNU.sparse.major=1",
    b"GNU.sparse.map=0,1", b"mtime=x",
                          b"linkpath=/", b"hdrcharset=BINARY", b"path=" + b"a/" * random.choice((2, 200,
                          40_000)), b"=", b"\xff=\xff"))  # fmt: skip
    record = b"%d %s\n" % (random.choice((len(text) + 4, 1, 0, 10**6)), text)
    header.size = len(record)
    return header.tobuf() + record + bytes(-len(record) % 512)


# -- TensorFlow's table of a checkpoint (tensorflow/core/lib/io/table_format.txt)


def crc32c(content: bytes, _table: list[int] = []) -> int:  # noqa: B006 - made once
    if not _table:
        for byte in range(256):
            for _ in range(8):
                byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
            _table.append(byte)
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes((*made, number))


def read_varint(content: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (content[place] & 127) << shift
        place, shift = place + 1, shift + 7
        if not content[place - 1] & 128:
            return number, place


def table_entries(content: bytes) -> list[tuple[bytes, bytes]]:
    """(key, value) of a table, in order; blocks are not compressed."""
    _, place = read_varint(content, len(content) - 48)
    _, place = read_varint(content, place)
    offset, place = read_varint(content, place)
    size, _ = read_varint(content, place)
    entries: list[tuple[bytes, bytes]] = []
    for _, handle in _block(content[offset : offset + size]):
        start, place = read_varint(handle, 0)
        length, _ = read_varint(handle, place)
        entries += _block(content[start : start + length])
    return entries


def _block(content: bytes) -> list[tuple[bytes, bytes]]:
    (restarts,) = struct.unpack_from("<I", content, len(content) - 4)
    end, place, key, entries = len(content) - 4 - 4 * restarts, 0, b"", []
    while place < end:
        shared, place = read_varint(content, place)
        own, place = read_varint(content, place)
        length, place = read_varint(content, place)
        key = key[:shared] + content[place : place + own]
        entries.append((key, content[place + own : place + own + length]))
        place += own + length
    return entries


def table_of(entries: list[tuple[bytes, bytes]], random: Random | None = None) -> bytes:
    """A table of one data block; with ``random``, some lengths and handles may lie, their checksums being right."""

    def lie(number: int) -> int:
        return random.choice(NUMBERS) if random and random.random() < 0.01 else number

    def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
        body = b"".join(varint(lie(0)) + varint(lie(len(k))) + varint(lie(len(v))) + k + v for k, v in pairs)
        body += struct.pack("<II", lie(0) % (1 << 32), lie(1) % (1 << 32))
        masked = crc32c(body + b"\0")
        return body + b"\0" + struct.pack("<I", ((masked >> 15 | masked << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    data, meta = block(entries), block([])
    handle = varint(lie(0)) + varint(lie(len(data) - 5))
    index = block([(entries[-1][0] + b"\xff", handle)])
    footer = (
        varint(lie(len(data)))
        + varint(lie(len(meta) - 5))
        + varint(lie(len(data) + len(meta)))
        + varint(lie(len(index) - 5))
    )
    return data + meta + index + footer[:40].ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def table(content: bytes, random: Random) -> bytes:
    """The index of a TensorFlow checkpoint: keys and values changed in a table whose checksums are right again."""
    if random.random() < 0.2:
        return some_bytes(content, random)
    entries = table_entries(content)
    for _ in range(random.choice((0, 1, 1, 2))):
        place = random.randrange(len(entries))
        key, record = entries[place]
        match random.randrange(6):
            case 0:
                entries.pop(place)
            case 1:
                entries[place] = (some_bytes(key, random), record)
            case 2:
                entries[place] = (key, random.choice(entries)[1])
            case _:
                entries[place] = (key, message(record, random))
        entries = entries or [(b"", b"")]
    return table_of(sorted(entries) if random.random() < 0.8 else entries, random)


def message(content: bytes, random: Random) -> bytes:
    """A protocol buffer: fields removed, doubled, or with other numbers."""
    try:
        fields = list(_fields(content))
    except (IndexError, ValueError):
        return some_bytes(content, random)
    if not fields or random.random() < 0.1:
        return some_bytes(content, random)
    place = random.randrange(len(fields))
    tag, body = fields[place]
    match random.randrange(6):
        case 0:
            fields.pop(place)
        case 1:
            fields.insert(place, random.choice(fields))
        case 2 if tag & 7 == 0:
            fields[place] = (tag, varint(random.choice(NUMBERS)))
        case 3:
            fields[place] = (random.choice((tag ^ 2, tag + 8, 1, 0)), body)
        case _ if tag & 7 == 2 and len(body) > 2:
            _, start = read_varint(body, 0)
            inner = message(body[start:], random)
            fields[place] = (tag, varint(len(inner) if random.random() < 0.9 else random.choice(NUMBERS)) + inner)
        case _:
            fields[place] = (tag, some_bytes(body, random))
    return b"".join(varint(tag) + body for tag, body in fields)


def _fields(content: bytes) -> Any:
    """(tag, what follows it) of each field."""
    place = 0
    while place < len(content):
        tag, start = read_varint(content, place)
        match tag & 7:
            case 0:
                _, place = read_varint(content, start)
            case 1:
                place = start + 8
            case 2:
                length, data = read_varint(content, start)
                place = data + length
            case 5:
                place = start + 4
            case _:
                raise ValueError("no wire type")
        if place > len(content):
            raise ValueError("cut short")
        yield tag, content[start:place]


def deflated(inner: Bytes) -> Bytes:
    """A stream of gzip changed inside, its checksum right again."""

    def change(content: bytes, random: Random) -> bytes:
        try:
            return gzip.compress(inner(gzip.decompress(content), random), 1, mtime=0)
        except (OSError, zlib.error, EOFError):
            return some_bytes(content, random)

    return change
