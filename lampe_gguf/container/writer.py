"""Write a GGUF file: new metadata before the unchanged tensor data of another."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import LampeError
from .block_copy import BLOCK
from .copying import OnProgress, copy_range, reserve, write_all
from .format import MAGIC, SCALARS, U32, U64, KeyValue, ValueType, padded
from .positioned import read_at
from .reader import GGUFFile


def encode_pair(key: str, kind: ValueType, value: int | float | str) -> bytes:
    """The bytes of one key and its scalar or string value, as they stand in a file."""
    head = _encode_string(key) + U32.pack(kind)
    if kind is ValueType.STRING:
        return head + _encode_string(str(value))
    return head + SCALARS[kind].pack(value)


def _encode_string(text: str) -> bytes:
    data = text.encode()
    return U64.pack(len(data)) + data


def encode_padding(
    key: str, source: GGUFFile, kept: Sequence[KeyValue], added: Sequence[bytes]
) -> bytes:
    """A pair that makes the metadata grow by whole blocks, given all that is written beside it.

    The data section then keeps its place within a block, and file systems that can (XFS, Btrfs)
    share its blocks with the source: nothing is copied and nothing takes room twice. An array,
    because llama.cpp leaves arrays out when it lists the metadata.
    """
    head = _encode_string(key) + U32.pack(ValueType.ARRAY) + U32.pack(ValueType.UINT8)
    grown = _header_end(source, kept, added) + len(head) + 8 - source.tensors_end
    count = -grown % BLOCK
    return head + U64.pack(count) + bytes(count)


def output_size(source: GGUFFile, kept: Sequence[KeyValue], added: Sequence[bytes]) -> int:
    """Size in bytes of what write_gguf writes, for progress."""
    return _rest_offset(source, kept, added) + source.size - _rest(source)


def _header_end(source: GGUFFile, kept: Sequence[KeyValue], added: Sequence[bytes]) -> int:
    pairs = sum(pair.end - pair.offset for pair in kept) + sum(map(len, added))
    return source.pairs_offset + pairs + source.tensors_end - source.tensors_offset


def _rest(source: GGUFFile) -> int:
    # without tensors there is no data, and what follows the header needs no alignment: a number
    # in the file must not make gigabytes of it
    return source.data_offset if source.tensors else source.tensors_end


def _rest_offset(source: GGUFFile, kept: Sequence[KeyValue], added: Sequence[bytes]) -> int:
    end = _header_end(source, kept, added)
    return padded(end, source.alignment) if source.tensors else end


def write_gguf(
    fd: int,
    source: GGUFFile,
    kept: Sequence[KeyValue],
    added: Sequence[bytes] = (),
    on_progress: OnProgress | None = None,
) -> None:
    """Write `source` with only its pairs `kept` (in that order), then `added`, into an empty file.

    Every kept pair, the list of tensors and the data section are the source's own bytes. The
    alignment is the source's: `kept` must hold `general.alignment` where the source has it.
    Raises OSError as the system reports it.
    """
    counts = U64.pack(len(source.tensors)) + U64.pack(len(kept) + len(added))
    preamble = MAGIC + U32.pack(source.version) + counts
    reserve(fd, output_size(source, kept, added))
    write_all(fd, preamble, 0)
    at = len(preamble)

    def copy(start: int, end: int) -> None:
        nonlocal at
        copy_range(source.fd, start, fd, at, end - start, on_progress)
        at += end - start

    for start, end in _runs(kept):
        copy(start, end)
    for data in added:
        write_all(fd, data, at)
        at += len(data)
    copy(source.tensors_offset, source.tensors_end)
    at = _rest_offset(source, kept, added)  # what is between is a hole, which reads as zeros
    os.truncate(fd, output_size(source, kept, added))
    copy(_rest(source), source.size)


def check_written(
    fd: int, source: GGUFFile, kept: Sequence[KeyValue], added: Sequence[bytes] = ()
) -> None:
    """Read what write_gguf wrote; raises LampeError where it is not the file that was meant.

    The bytes come from the source one range after the other: where another program writes to it
    meanwhile, the header read at first and the one copied need not be the same.
    """
    source.check_unchanged()
    try:
        with GGUFFile(source.path, fd) as made:
            pairs = list(made.pairs.values())
            whole = (
                made.size == output_size(source, kept, added)
                and len(pairs) == len(kept) + len(added)
                and list(map(_form, pairs[: len(kept)])) == list(map(_form, kept))
                and (made.alignment, made.tensors) == (source.alignment, source.tensors)
                and all(_holds(made, *each) for each in zip(pairs[len(kept) :], added, strict=True))
            )
    except LampeError:
        whole = False
    if not whole:
        raise LampeError(
            f"what was copied from {source.path} is not what its header says: something writes to "
            "it, or the disk is failing; try again"
        )


def _form(pair: KeyValue) -> tuple[str, ValueType, int]:
    return pair.key, pair.type, pair.end - pair.offset


def _holds(file: GGUFFile, pair: KeyValue, data: bytes) -> bool:
    length = pair.end - pair.offset
    return length == len(data) and read_at(file.fd, length, pair.offset) == data


def _runs(pairs: Sequence[KeyValue]) -> list[tuple[int, int]]:
    """Spans of neighbouring pairs, merged: one copy instead of one per key."""
    runs: list[tuple[int, int]] = []
    for pair in pairs:
        if runs and runs[-1][1] == pair.offset:
            runs[-1] = (runs[-1][0], pair.end)
        else:
            runs.append((pair.offset, pair.end))
    return runs
