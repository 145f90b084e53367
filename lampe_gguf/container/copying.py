"""Copy a range of bytes between files, by the kernel where it can."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

from ..errors import LampeError
from .block_copy import BLOCK, LEAST, copy_blocks
from .positioned import read_at, write_at

OnProgress = Callable[[int], None]  # called with the number of bytes just written

CHUNK = 1 << 26  # per call into the kernel: often enough for progress and Ctrl-C
BUFFER = 1 << 20  # of the plain loop
# Copies of the kernel begin at multiples of this in the target. Linux then fills its cache with
# large pages, not with 4 kB ones, and has them on the disk in little more than half the time
# (4 GB on ext4 with the final sync: 2.3 s against 4.0 s).
STRIDE = 1 << 20

# copy_file_range says one of these where the kernel, or these two file systems, cannot do it
CANNOT = {
    errno.EXDEV,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.EPERM,
}


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`; the kernel may take it in pieces."""
    view = memoryview(data)
    while view:
        written = write_at(fd, view, offset)
        view, offset = view[written:], offset + written


def reserve(fd: int, size: int) -> None:
    """Tell the file system how large an empty file becomes; a hint, which may come to nothing.

    It saves a seventh of the time until 4 GB are on the disk. Not os.posix_fallocate: where the
    file system has no such call, that writes into every block instead.
    """
    try:
        fallocate = ctypes.CDLL(None).fallocate
    except (AttributeError, OSError, TypeError):
        return  # not Linux
    fallocate(fd, 0, ctypes.c_int64(0), ctypes.c_int64(size))


def copy_range(
    source: int,
    source_offset: int,
    target: int,
    target_offset: int,
    count: int,
    on_progress: OnProgress | None = None,
) -> None:
    """Copy `count` bytes from one open file into another; offsets in bytes.

    The blocks of a large range whose two offsets have the same remainder by the block size are
    shared or sent straight to the disk (block_copy.py); the rest is copied by the kernel, with
    copy_file_range, or elsewhere by a read and write loop with one small buffer. Raises
    LampeError when the source ends early, OSError as the system reports it.
    """
    report = on_progress or _ignore
    done = 0
    if count >= LEAST and (source_offset - target_offset) % BLOCK == 0:
        done = -target_offset % BLOCK
        _copy_plain(source, source_offset, target, target_offset, done, report)
        done += copy_blocks(
            source, source_offset + done, target, target_offset + done, count - done, report
        )
    _copy_plain(source, source_offset + done, target, target_offset + done, count - done, report)


def _copy_plain(
    source: int,
    source_offset: int,
    target: int,
    target_offset: int,
    count: int,
    report: OnProgress,
) -> None:
    use_kernel = hasattr(os, "copy_file_range")
    done = 0
    while done < count:
        at = target_offset + done
        size = min(-at % STRIDE or CHUNK, count - done)
        copied = 0
        if use_kernel:
            try:
                copied = os.copy_file_range(source, target, size, source_offset + done, at)
            except OSError as error:
                if error.errno not in CANNOT:
                    raise
            use_kernel = copied > 0  # 0 before the end: a file system that only claims to copy
        if not copied:
            data = read_at(source, min(size, BUFFER), source_offset + done)
            if not data:
                raise LampeError(
                    "the input file became shorter while it was read; try again once nothing "
                    "writes to it"
                )
            write_all(target, data, at)
            copied = len(data)
        done += copied
        report(copied)


def _ignore(count: int) -> None:
    pass
