"""Hidden files: those that a living program is making, and those that a dead one left behind.

Who makes one holds a lock on it, which the system takes back when the program ends, however it
ends. So what nobody holds is nobody's. Where the file system has no locks, nothing is removed.
What a record of a set lists (record.py) is finished first, or kept.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from . import record
from .positioned import BINARY

try:
    import fcntl
except ImportError:  # Windows: no locks, and nothing is removed
    fcntl = None  # type: ignore[assignment]

_LOOK = os.O_RDONLY | BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def hidden_path(directory: Path, suffix: str = ".tmp") -> Path:
    """A new name in a folder for what is not finished."""
    return directory / f".lampe-gguf-{secrets.token_hex(8)}{suffix}"


def hold(fd: int, path: Path) -> bool:
    """Keep others from removing the hidden file `path`, open as `fd`, until that is closed.

    False where someone has removed it already, before it was held.
    """
    if fcntl is not None:
        with contextlib.suppress(OSError):
            # shared: a hidden link to a part of a model may be one of several to the same file
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError:
        pass  # it does not say that the file is gone
    return True


def look(path: Path) -> int | None:
    """A file that is there, open to be held; None where it cannot be opened."""
    try:
        return os.open(path, _LOOK)
    except OSError:
        return None


def remove_leftovers(directory: Path) -> None:
    """Remove the hidden files and folders in a folder that no process holds.

    A set of files that a dead process was giving their names gets the rest of them before.
    """
    try:
        with os.scandir(directory) as entries:
            found = [entry.name for entry in entries]
    except OSError:
        return  # who writes there next says why that cannot be
    kept: set[str] = set()
    for name in filter(record.NAME.fullmatch, found):
        fd = look(directory / name)
        if fd is None:
            return  # it may list any of them
        try:
            kept |= _settle(fd, directory / name)
        finally:
            os.close(fd)
    for name in filter(record.HIDDEN.fullmatch, found):
        fd = None if name in kept else look(directory / name)
        if fd is not None:
            try:
                _remove(fd, directory / name)
            finally:
                os.close(fd)


def _settle(fd: int, path: Path) -> set[str]:
    """Finish the set of a record that nobody holds; the names that have to be kept."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return set()
    is_ours = _is_nobodys(fd) and status.st_uid == os.geteuid()  # others may want other things
    entries = record.read(fd)
    if is_ours:
        with contextlib.suppress(OSError):
            if record.settle(path.parent, entries):
                os.unlink(path)
                return set()
    return record.names(entries)


def _is_nobodys(fd: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(fd: int, path: Path) -> None:
    kind = os.fstat(fd).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)) or not _is_nobodys(fd):
        return
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(kind):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


@contextlib.contextmanager
def hidden_folder(directory: Path) -> Iterator[Path]:
    """A new hidden folder in `directory`, for as long as the context lasts; OSError as it comes."""
    remove_leftovers(directory)
    path = hidden_path(directory)
    fd: int | None = None
    try:
        os.mkdir(path, 0o700)
        fd = look(path)
        if fd is not None and not hold(fd, path):
            os.mkdir(path, 0o700)  # removed in the moment before it was held
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if fd is not None:
            os.close(fd)
