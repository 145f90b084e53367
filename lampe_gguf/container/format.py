"""The GGUF format: its types, and a cursor that reads entries of a header where they lie.

Nothing in a header is trusted: each count and length is checked against the bytes that the
file has left before anything is allocated.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from pathlib import Path
from typing import Any

from ..errors import LampeError
from .positioned import read_at

MAGIC = b"GGUF"
MAX_KEY_LENGTH = 65535  # the format's own limit
MAX_DIMS = 4  # ggml's
MAX_TENSOR_NAME = 63  # ggml's
# ours: what would fill the memory, and no model needs
MAX_ENTRIES = 1 << 20  # keys, tensors
MAX_DECODED = 1 << 20  # bytes of one value that is decoded; others are only carried over

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
    count: int = 1  # elements of an array


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One tensor: shape in ggml's order (fastest first), offset from the data section's start."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


class Cursor:
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
            chunk = read_at(self.fd, max(self.CHUNK, count), self.base + len(self.buffer))
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
        left = self.size - self.offset
        if number * least > left:
            raise self.error(f"it claims {number} {what}, and {left} bytes are left")
        if number > limit:
            raise LampeError(
                f"{self.path} has {number:,} {what}, and this program reads files of up to "
                f"{limit:,}; the file itself may be in order"
            )
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


def decode(cursor: Cursor, kind: ValueType, key: str) -> Any:
    if kind is ValueType.STRING:
        return cursor.text(MAX_DECODED, key)
    scalar = SCALARS[kind]
    return scalar.unpack(cursor.take(scalar.size, key))[0]


def read_pair(cursor: Cursor) -> KeyValue:
    offset = cursor.offset
    key = cursor.text(MAX_KEY_LENGTH, "a metadata key")
    if not key:
        raise cursor.error("a metadata key is empty")
    kind = cursor.value_type(key)
    value_offset = cursor.offset
    count = 1
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
    return KeyValue(key, kind, offset, value_offset, cursor.offset, count)


def read_tensor(cursor: Cursor) -> TensorInfo:
    name = cursor.text(MAX_TENSOR_NAME, "a tensor's name")
    n_dims = cursor.u32(name)
    if n_dims > MAX_DIMS:
        raise cursor.error(f"the tensor {name} claims {n_dims} dimensions")
    shape = tuple(cursor.u64(name) for _ in range(n_dims))
    return TensorInfo(name, shape, cursor.u32(name), cursor.u64(name))


def padded(offset: int, alignment: int) -> int:
    """The next multiple of `alignment` at or after `offset`."""
    return -(-offset // alignment) * alignment
