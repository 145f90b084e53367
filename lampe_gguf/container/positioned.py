"""What systems differ in about open files: bytes at a place, and names of what is open.

Windows has no reading and writing at a place, translates line ends in what is not opened as
binary, and gives no other name to a file that a program holds open.
"""

from __future__ import annotations

import os
import threading

BINARY = getattr(os, "O_BINARY", 0)  # a flag for os.open

# whether a file can be renamed, replaced and removed while it is open
RENAMES_OPEN_FILES = os.name != "nt"

_moving = threading.Lock()  # an open file has one place, which both steps below need


def read_at(fd: int, count: int, offset: int) -> bytes:
    """At most `count` bytes from `offset` on; fewer at the end of the file."""
    if hasattr(os, "pread"):
        return os.pread(fd, count, offset)
    with _moving:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, count)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write at `offset`; how many bytes were taken, which may be fewer than `data` has."""
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, data, offset)
    with _moving:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.write(fd, data)
