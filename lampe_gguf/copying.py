"""Copy a range of bytes between files, by the kernel where it can."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from .errors import LampeError

OnProgress = Callable[[int], None]  # called with the number of bytes just written

CHUNK = 1 << 26  # per call into the kernel: often enough for progress and Ctrl-C
BUFFER = 1 << 20  # of the plain loop
BLOCK = 4096  # of file systems that share extents between files (XFS, Btrfs)

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
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def copy_range(
    source: int,
    source_offset: int,
    target: int,
    target_offset: int,
    count: int,
    on_progress: OnProgress | None = None,
) -> None:
    """Copy `count` bytes from one open file into another; offsets in bytes.

    copy_file_range lets the kernel share the blocks on file systems that can (where both
    offsets have the same remainder by the block size), and copies without a trip through this
    process on the others; a read and write loop with one small buffer does it elsewhere.
    Raises LampeError when the source ends early, OSError as the system reports it.
    """
    use_kernel = hasattr(os, "copy_file_range")
    done = 0
    # blocks are shared only from a block's start on
    head = -source_offset % BLOCK if (source_offset - target_offset) % BLOCK == 0 else 0
    while done < count:
        size = min(CHUNK, count - done) if done or not head else min(head, count)
        copied = 0
        if use_kernel:
            try:
                copied = os.copy_file_range(
                    source, target, size, source_offset + done, target_offset + done
                )
            except OSError as error:
                if error.errno not in CANNOT:
                    raise
            use_kernel = copied > 0  # 0 before the end: a file system that only claims to copy
        if not copied:
            data = os.pread(source, min(size, BUFFER), source_offset + done)
            if not data:
                raise LampeError(
                    "the input file became shorter while it was read; try again once nothing "
                    "writes to it"
                )
            write_all(target, data, target_offset + done)
            copied = len(data)
        done += copied
        if on_progress is not None:
            on_progress(copied)
