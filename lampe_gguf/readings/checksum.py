"""A checksum over a whole file, on all cores: SHA-256 of the SHA-256 of its blocks.

SHA-256 because processors have instructions for it: of what hashlib offers it is as fast as SHA-1
there and two times faster than BLAKE2 and MD5.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..backend.cores import usable_cores
from ..container.meter import Meter

BLOCK = 1 << 23
MOST_THREADS = 8  # more than a disk keeps busy


def checksum(fd: int, size: int, on_progress: Callable[[int, int], None] | None = None) -> str:
    """Of the first `size` bytes of an open file; of what there is, where it is shorter.

    on_progress  called with (bytes done, all), in this thread; what it raises ends the work
    OSError where it cannot be read.
    """
    meter = Meter(size, on_progress)

    def block(start: int) -> bytes:
        wanted = min(BLOCK, size - start)
        hashed = hashlib.sha256()
        while wanted:
            data = os.pread(fd, wanted, start)
            if not data:
                break
            hashed.update(data)
            start += len(data)
            wanted -= len(data)
        return hashed.digest()

    whole = hashlib.sha256(b"%d" % size)
    pool = ThreadPoolExecutor(max(1, min(MOST_THREADS, usable_cores() or 1)))
    try:
        for number, digest in enumerate(pool.map(block, range(0, size, BLOCK))):
            whole.update(digest)
            meter.advance(min(BLOCK, size - number * BLOCK))
    finally:
        pool.shutdown(cancel_futures=True)
    return whole.hexdigest()
