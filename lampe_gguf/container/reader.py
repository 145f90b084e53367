"""The GGUF container, streamed: a file's header as spans of bytes, decoded only on demand.

The `gguf` package maps the whole file and can only write one anew; a converter has to keep
every byte it does not own, in order, in constant memory. So a file is read as *spans*: a key
and its value, the list of tensors, the tensor data, each an offset and a length that is copied
and never decoded. Offsets of tensors count from the start of the data section, hence the list
of tensors stays valid however the metadata before it grows.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from pathlib import Path

from ..errors import LampeError, UsageError
from .format import (
    MAGIC,
    MAX_DECODED,
    MAX_ENTRIES,
    MIN_PAIR_SIZE,
    MIN_TENSOR_SIZE,
    U32,
    Cursor,
    KeyValue,
    Value,
    damaged,
    decode,
    read_pair,
    read_tensor,
)
from .format import ValueType as ValueType
from .format import padded as padded
from .positioned import BINARY, read_at

VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
KEY_ALIGNMENT = "general.alignment"
KEY_ARCHITECTURE = "general.architecture"


class GGUFFile:
    """An open GGUF file, its header parsed; a context manager.

    `pairs` keeps the order of the file; `tensors_offset` and `tensors_end` bound the list of
    tensors, `data_offset` is where their data begins, `size` is the whole file's (all bytes).
    `fd` is a descriptor of the file where it is open already; it stays the caller's.
    Raises LampeError when the path cannot be read, is no little-endian GGUF of version 2 or 3,
    or is shorter than its own header says.
    """

    def __init__(self, path: str | bytes | os.PathLike[str], fd: int | None = None) -> None:
        self.path = Path(os.fsdecode(path))
        self.fd = _open(self.path) if fd is None else os.dup(fd)
        try:
            self._read()
        except OSError as error:
            self.close()
            raise LampeError(f"cannot read {self.path}: {error.strerror}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; closing it again does nothing."""
        fd, self.fd = self.fd, -1  # by then the number may be another file's
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise _irregular(self.path, stat.S_ISDIR(status.st_mode))
        self.mode = stat.S_IMODE(status.st_mode)
        self.size = status.st_size
        self.modified = status.st_mtime_ns
        self._read_preamble()
        cursor = Cursor(self.fd, self.size, self.path, len(MAGIC) + 4)
        n_tensors = cursor.count(MIN_TENSOR_SIZE, MAX_ENTRIES, "tensors")
        n_pairs = cursor.count(MIN_PAIR_SIZE, MAX_ENTRIES, "metadata keys")
        self.pairs_offset = cursor.offset
        self.pairs: dict[str, KeyValue] = {}
        for _ in range(n_pairs):
            pair = read_pair(cursor)
            if pair.key in self.pairs:
                raise LampeError(
                    f"{self.path} has the metadata key {pair.key} twice, which no reader accepts; "
                    "fetch or make the file again"
                )
            self.pairs[pair.key] = pair
        self.tensors_offset = cursor.offset
        cursor.need(n_tensors * MIN_TENSOR_SIZE, f"a list of {n_tensors} tensors")
        self.tensors = [read_tensor(cursor) for _ in range(n_tensors)]
        self.tensors_end = cursor.offset
        self.alignment = self._read_alignment()
        self.data_offset = padded(self.tensors_end, self.alignment)
        self._check_data()

    def _read_preamble(self) -> None:
        start = read_at(self.fd, len(MAGIC) + 4, 0)
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
        kind = self.pairs[KEY_ALIGNMENT].type
        if kind is not ValueType.UINT32:
            wrong = f"{KEY_ALIGNMENT} is of the type {kind.name.lower()}, not uint32"
            raise damaged(self.path, wrong)
        value = self.value(KEY_ALIGNMENT)
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

    def check_unchanged(self) -> None:
        """Raise LampeError where someone has written to the file since it was opened."""
        status = os.fstat(self.fd)
        if (status.st_size, status.st_mtime_ns) != (self.size, self.modified):
            raise LampeError(
                f"{self.path} changed while it was read; try again once nothing writes to it"
            )

    def value(self, key: str) -> Value | None:
        """The decoded value of a key, or None where the file has no such key.

        Raises LampeError where it is longer than MAX_DECODED: nothing here needs a vocabulary.
        """
        pair = self.pairs.get(key)
        if pair is None:
            return None
        length = pair.end - pair.value_offset
        if length > MAX_DECODED:
            raise LampeError(
                f"{key} in {self.path} takes {length:,} bytes, and this program reads values of up "
                f"to {MAX_DECODED:,}; the file itself may be in order"
            )
        try:
            return self._decode(pair)
        except OSError as error:
            raise LampeError(f"cannot read {self.path}: {error.strerror}") from None

    def _decode(self, pair: KeyValue) -> Value:
        key = pair.key
        cursor = Cursor(self.fd, self.size, self.path, pair.value_offset)
        if pair.type is not ValueType.ARRAY:
            scalar: Value = decode(cursor, pair.type, key)
            return scalar
        kind = cursor.value_type(key)
        count = cursor.u64(key)
        return [decode(cursor, kind, key) for _ in range(count)]

    def array_length(self, key: str) -> int:
        """Number of elements of an array, 0 where the file has no such array."""
        pair = self.pairs.get(key)
        if pair is None or pair.type is not ValueType.ARRAY:
            return 0
        return pair.count

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


def _open(path: Path) -> int:
    # without O_NONBLOCK, a FIFO would wait for someone to write into it
    flags = os.O_RDONLY | BINARY | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, a device that is not there
            raise _irregular(path) from None
        raise LampeError(f"cannot open {path}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{os.fspath(path)!r} can be no path; give another") from None


def _irregular(path: Path, is_folder: bool = False) -> LampeError:
    if is_folder:
        return LampeError(f"{path} is a folder; give the path of a GGUF file")
    return LampeError(f"{path} is not a regular file; give the path of a GGUF file")
