"""Look at a path that a user gave; what cannot be looked at is said in a sentence."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import LampeError, UsageError
from .positioned import BINARY


def status(path: Path) -> os.stat_result | None:
    """What is at a path, None where nothing is.

    Raises LampeError where that cannot be known (a folder that may not be searched, a name that
    is too long, links in a circle), UsageError for what can be no name.
    """
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LampeError(
            f"cannot look at {path}: {error.strerror}; give another path, or change its permissions"
        ) from None
    except ValueError:  # a zero byte; lone surrogates that stand for no byte
        raise UsageError(f"{os.fspath(path)!r} can be no path; give another") from None


def exists(path: Path) -> bool:
    """Whether there is anything at a path; errors as status()."""
    return status(path) is not None


def is_dir(path: Path) -> bool:
    """Whether there is a folder at a path; errors as status()."""
    found = status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file, a descriptor; OSError as it comes, UsageError for anything else.

    Of a FIFO or a device, a read may never end.
    """
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    # without O_NONBLOCK, opening a FIFO would wait for someone at its other end
    fd = os.open(path, flags | BINARY | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"{path} is not a regular file; give another path")
    return fd
