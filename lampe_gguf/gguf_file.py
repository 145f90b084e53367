"""The GGUF container, streamed: a file's header as spans of bytes, decoded only on demand.

The `gguf` package maps the whole file and can only write one anew; a converter has to keep
every byte it does not own, in order, in constant memory. So a file is read as *spans*: a key
and its value, the list of tensors, the tensor data, each an offset and a length that is copied
and never decoded. Offsets of tensors count from the start of the data section, hence the list
of tensors stays valid however the metadata before it grows.

Nothing in a header is trusted: each count and length is checked against the bytes that the
file has left before anything is allocated.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import os
import stat
import struct
from pathlib import Path
from typing import Any

from .errors import LampeError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
KEY_ALIGNMENT = "general.alignment"
KEY_ARCHITECTURE = "general.architecture"

MAX_KEY_LENGTH = 65535  # the format's own limit
MAX_ENTRIES = 1 << 20  # keys, tensors: far above any model, so that a list of them stays small
MAX_DIMS = 4  # ggml's
MAX_TENSOR_NAME = 63  # ggml's
MAX_DECODED = 1 << 20  # bytes of a string, elements of an array, that value() decodes

# the least that an entry can take: bounds the counts of a damaged header
MIN_PAIR_SIZE = 8 + 4 + 1
MIN_TENSOR_SIZE = 8 + 4 + 4 + 8

Value = int | float | bool | str | list[Any]


class ValueType(enum.IntEnum):
    """Types of metadata values, by their number in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


SCALARS = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: struct.Struct("<I"),
    ValueType.INT32: struct.Struct("<i"),
    ValueType.FLOAT32: struct.Struct("<f"),
    ValueType.BOOL: struct.Struct("<?"),
    ValueType.UINT64: struct.Struct("<Q"),
    ValueType.INT64: struct.Struct("<q"),
    ValueType.FLOAT64: struct.Struct("<d"),
}
U32 = SCALARS[ValueType.UINT32]
U64 = SCALARS[ValueType.UINT64]


@dataclasses.dataclass(frozen=True)
class KeyValue:
    """Where one key and its value lie in the file (bytes from its start)."""

    key: str
    type: ValueType
    offset: int
    value_offset: int
    end: int


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One tensor: shape in ggml's order (fastest first), offset from the data section's start."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


class _Cursor:
    """Reads a file forward through one buffer; never past the end of the file."""

    CHUNK = 1 << 18

    def __init__(self, fd: int, size: int, path: Path, start: int) -> None:
        self.fd = fd
        self.size = size
        self.path = path
        self.buffer = b""
        self.base = start  # file offset of buffer[0]
        self.at = 0

    @property
    def offset(self) -> int:
        return self.base + self.at

    def error(self, what: str) -> LampeError:
        return damaged(self.path, what)

    def need(self, count: int, what: str) -> None:
        left = self.size - self.offset
        if count > left:
            raise self.error(f"{what} needs {count} bytes where {left} are left")

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        if len(self.buffer) - self.at < count:
            self._fill(count, what)
        self.at += count
        return self.buffer[self.at - count : self.at]

    def _fill(self, count: int, what: str) -> None:
        self.base, self.buffer, self.at = self.offset, self.buffer[self.at :], 0
        while len(self.buffer) < count:
            chunk = os.pread(self.fd, max(self.CHUNK, count), self.base + len(self.buffer))
            if not chunk:
                raise self.error(f"it became shorter while {what} was read")
            self.buffer += chunk

    def skip(self, count: int, what: str) -> None:
        self.need(count, what)
        if self.at + count <= len(self.buffer):
            self.at += count
        else:
            self.base, self.buffer, self.at = self.offset + count, b"", 0

    def skip_strings(self, count: int, what: str) -> None:
        # a vocabulary holds hundreds of thousands: the one loop that is worth making tight
        unpack, buffer, at = U64.unpack_from, self.buffer, self.at
        for _ in range(count):
            if at + 8 <= len(buffer):
                end = at + 8 + unpack(buffer, at)[0]
                if end <= len(buffer):
                    at = end
                    continue
            self.at = at
            self.skip(self.u64(what), what)
            buffer, at = self.buffer, self.at
        self.at = at

    def u32(self, what: str) -> int:
        return int(U32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(U64.unpack(self.take(8, what))[0])

    def count(self, least: int, limit: int, what: str) -> int:
        number = self.u64(what)
        if number > limit:
            raise self.error(f"it claims {number} {what}, more than any file has")
        self.need(number * least, f"a list of {number} {what}")
        return number

    def text(self, limit: int, what: str) -> str:
        length = self.u64(what)
        if length > limit:
            raise self.error(f"{what} claims {length} bytes, more than {limit}")
        return self.take(length, what).decode("utf-8", "backslashreplace")

    def value_type(self, what: str) -> ValueType:
        number = self.u32(what)
        try:
            return ValueType(number)
        except ValueError:
            raise self.error(f"{what} has the unknown type {number}") from None


def damaged(path: Path, what: str) -> LampeError:
    return LampeError(f"{path} is cut short or damaged ({what}); fetch or make the file again")


class GGUFFile:
    """An open GGUF file, its header parsed; a context manager.

    `pairs` keeps the order of the file; `tensors_offset` and `tensors_end` bound the list of
    tensors, `data_offset` is where their data begins, `size` is the whole file's (all bytes).
    Raises LampeError when the path cannot be read, is no little-endian GGUF of version 2 or 3,
    or is shorter than its own header says.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise LampeError(f"cannot open {self.path}: {error.strerror}") from None
        try:
            self._read()
        except OSError as error:
            self.close()
            raise LampeError(f"cannot read {self.path}: {error.strerror}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise LampeError(f"{self.path} is not a regular file; give the path of a GGUF file")
        self.mode = stat.S_IMODE(status.st_mode)
        self.size = status.st_size
        self._read_preamble()
        cursor = _Cursor(self.fd, self.size, self.path, len(MAGIC) + 4)
        n_tensors = cursor.count(0, MAX_ENTRIES, "tensors")
        n_pairs = cursor.count(MIN_PAIR_SIZE, MAX_ENTRIES, "metadata keys")
        self.pairs_offset = cursor.offset
        self.pairs: dict[str, KeyValue] = {}
        for _ in range(n_pairs):
            pair = _read_pair(cursor)
            if pair.key in self.pairs:
                raise LampeError(
                    f"{self.path} has the metadata key {pair.key} twice, which no reader accepts; "
                    "fetch or make the file again"
                )
            self.pairs[pair.key] = pair
        self.tensors_offset = cursor.offset
        cursor.need(n_tensors * MIN_TENSOR_SIZE, f"a list of {n_tensors} tensors")
        self.tensors = [_read_tensor(cursor) for _ in range(n_tensors)]
        self.tensors_end = cursor.offset
        self.alignment = self._read_alignment()
        self.data_offset = padded(self.tensors_end, self.alignment)
        self._check_data()

    def _read_preamble(self) -> None:
        start = os.pread(self.fd, len(MAGIC) + 4, 0)
        if not start:
            raise LampeError(f"{self.path} is empty; fetch or make the file again")
        if start.startswith(b"version "):
            raise LampeError(
                f"{self.path} is a Git LFS pointer, not the model itself; run git lfs pull"
            )
        if start[:4] != MAGIC:
            raise LampeError(f"{self.path} is not a GGUF file; give the path of one")
        if len(start) < len(MAGIC) + 4:
            raise damaged(self.path, "it ends after its first bytes")
        self.version = int(U32.unpack(start[4:])[0])
        if self.version & 0xFFFF == 0:
            raise LampeError(
                f"{self.path} is a big-endian GGUF file, which is not supported; "
                "use the little-endian file of the same model"
            )
        if self.version not in VERSIONS:
            raise LampeError(
                f"{self.path} is GGUF version {self.version}, and only versions 2 and 3 are "
                "supported; convert the model again with a current llama.cpp"
            )

    def _read_alignment(self) -> int:
        if KEY_ALIGNMENT not in self.pairs:
            return DEFAULT_ALIGNMENT
        value = self.value(KEY_ALIGNMENT)
        if self.pairs[KEY_ALIGNMENT].type is not ValueType.UINT32:
            raise damaged(self.path, f"{KEY_ALIGNMENT} is not a 32-bit number")
        assert isinstance(value, int)
        if value == 0 or value & (value - 1):
            raise damaged(self.path, f"{KEY_ALIGNMENT} is {value}, not a power of two")
        return value

    def _check_data(self) -> None:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        sizes = {int(kind): GGML_QUANT_SIZES[kind] for kind in GGMLQuantizationType}
        available = self.size - self.data_offset
        names: set[str] = set()
        for tensor in self.tensors:
            if tensor.name in names:
                raise damaged(self.path, f"the tensor {tensor.name} is listed twice")
            names.add(tensor.name)
            # a type newer than the gguf package: its size is unknown, its start is not
            block, block_size = sizes.get(tensor.type, (1, 0))
            needed = tensor.offset + math.prod(tensor.shape) // block * block_size
            if needed > available:
                raise damaged(
                    self.path,
                    f"the tensor {tensor.name} ends {needed} bytes into the data, "
                    f"of which the file has {max(0, available)}",
                )

    def value(self, key: str) -> Value | None:
        """The decoded value of a key, or None where the file has no such key.

        Strings and arrays above MAX_DECODED are refused: nothing here needs a vocabulary.
        """
        pair = self.pairs.get(key)
        if pair is None:
            return None
        cursor = _Cursor(self.fd, self.size, self.path, pair.value_offset)
        if pair.type is not ValueType.ARRAY:
            scalar: Value = _decode(cursor, pair.type, key)
            return scalar
        kind = cursor.value_type(key)
        count = cursor.u64(key)
        if count > MAX_DECODED:
            raise LampeError(f"{self.path} has {count} values in {key}, too many to read")
        return [_decode(cursor, kind, key) for _ in range(count)]

    def array_length(self, key: str) -> int:
        """Number of elements of an array, 0 where the file has no such array."""
        pair = self.pairs.get(key)
        if pair is None or pair.type is not ValueType.ARRAY:
            return 0
        return int(U64.unpack(os.pread(self.fd, 8, pair.value_offset + 4))[0])

    @property
    def architecture(self) -> str:
        """`general.architecture`; raises LampeError where the file does not say."""
        value = self.value(KEY_ARCHITECTURE)
        if not isinstance(value, str) or not value:
            raise LampeError(
                f"{self.path} does not say its architecture ({KEY_ARCHITECTURE}); "
                "give the file of a language model"
            )
        return value


def _decode(cursor: _Cursor, kind: ValueType, key: str) -> Any:
    if kind is ValueType.STRING:
        return cursor.text(MAX_DECODED, key)
    scalar = SCALARS[kind]
    return scalar.unpack(cursor.take(scalar.size, key))[0]


def _read_pair(cursor: _Cursor) -> KeyValue:
    offset = cursor.offset
    key = cursor.text(MAX_KEY_LENGTH, "a metadata key")
    if not key:
        raise cursor.error("a metadata key is empty")
    kind = cursor.value_type(key)
    value_offset = cursor.offset
    if kind is ValueType.STRING:
        cursor.skip(cursor.u64(key), key)
    elif kind is not ValueType.ARRAY:
        cursor.skip(SCALARS[kind].size, key)
    else:
        element = cursor.value_type(key)
        count = cursor.u64(key)
        if element is ValueType.ARRAY:
            raise cursor.error(f"{key} is an array of arrays, which no reader accepts")
        if element is ValueType.STRING:
            cursor.need(count * 8, key)
            cursor.skip_strings(count, key)
        else:
            cursor.skip(count * SCALARS[element].size, key)
    return KeyValue(key, kind, offset, value_offset, cursor.offset)


def _read_tensor(cursor: _Cursor) -> TensorInfo:
    name = cursor.text(MAX_TENSOR_NAME, "a tensor's name")
    n_dims = cursor.u32(name)
    if n_dims > MAX_DIMS:
        raise cursor.error(f"the tensor {name} claims {n_dims} dimensions")
    shape = tuple(cursor.u64(name) for _ in range(n_dims))
    return TensorInfo(name, shape, cursor.u32(name), cursor.u64(name))


def padded(offset: int, alignment: int) -> int:
    """The next multiple of `alignment` at or after `offset`."""
    return -(-offset // alignment) * alignment
