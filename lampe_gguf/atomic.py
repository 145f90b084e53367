"""New files, put in place whole or not at all.

Each is written under a hidden name in its own directory, synced, and renamed; whatever ends the
work early with an exception removes what was written so far.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import secrets
import stat
from pathlib import Path
from types import TracebackType

from .copying import write_all
from .errors import LampeError, UsageError


@dataclasses.dataclass
class _Output:
    target: Path
    hidden: Path
    fd: int | None  # None for a link to a file that exists already


def check_target(target: Path, force: bool) -> None:
    """Refuse a target that exists, unless `force`; one that is no file is refused anyway."""
    try:
        status = target.stat()
    except FileNotFoundError:
        if target.is_symlink() and not force:
            raise UsageError(f"{target} exists already; add --force to replace it") from None
        return
    except OSError as error:
        raise LampeError(
            f"cannot write {target}: {error.strerror}; give another output path"
        ) from None
    except ValueError:
        raise UsageError(f"{os.fspath(target)!r} can be no path; give another") from None
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{target} is not a regular file; give another output path")
    if not force:
        raise UsageError(f"{target} exists already; add --force to replace it")


class NewFiles:
    """A set of files that appear together on `commit()`; leaving the context without it undoes.

    A replaced name loses its old file, even where that is the one being read: what is open stays
    readable, and other names of it (links) keep it. Errors of the system become LampeErrors.
    """

    def __init__(self, force: bool = False) -> None:
        self.force = force
        self.outputs: list[_Output] = []

    def __enter__(self) -> NewFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for output in self.outputs:
            if output.fd is not None:
                os.close(output.fd)
            output.hidden.unlink(missing_ok=True)
        if isinstance(error, OSError):
            target = self.outputs[-1].target if self.outputs else Path(error.filename or "")
            raise _explain(error, target) from error

    def create(self, target: Path, mode: int = 0o666) -> int:
        """Open an empty file that will become `target`; its permissions are `mode` less umask."""
        check_target(target, self.force)
        hidden = _hidden(target)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        try:
            fd = os.open(hidden, flags, mode)
        except OSError as error:
            raise _explain(error, target) from error
        self.outputs.append(_Output(target, hidden, fd))
        return fd

    def link(self, source: Path, target: Path) -> bool:
        """Have `target` name the very file `source`; False where the file system cannot."""
        check_target(target, self.force)
        hidden = _hidden(target)
        try:
            os.link(os.path.realpath(source), hidden)
        except OSError:
            return False
        self.outputs.append(_Output(target, hidden, None))
        return True

    def commit(self) -> None:
        """Sync all files and give them their names: all of them, or none where one fails."""
        for output in self.outputs:
            if output.fd is not None:
                os.fsync(output.fd)
        several = len(self.outputs) > 1
        done: list[tuple[Path, Path | None]] = []
        try:
            for output in self.outputs:
                check_target(output.target, self.force)
                backup = _backup(output.target) if several else None
                done.append((output.target, backup))
                os.replace(output.hidden, output.target)
        except BaseException:
            for target, backup in done:
                if backup is not None:
                    os.replace(backup, target)
                elif several:
                    target.unlink(missing_ok=True)
            raise
        for _, backup in done:
            if backup is not None:
                backup.unlink(missing_ok=True)
        for directory in {output.target.parent for output in self.outputs}:
            _sync_directory(directory)


def write_file(target: Path, data: bytes, *, force: bool = False) -> None:
    """Write a small file whole or not at all; UsageError where it exists, without `force`."""
    with NewFiles(force) as files:
        write_all(files.create(target), data, 0)
        files.commit()


def _hidden(target: Path) -> Path:
    return target.parent / f".lampe-gguf-{secrets.token_hex(8)}.tmp"


def _backup(target: Path) -> Path | None:
    if not os.path.lexists(target):
        return None
    backup = _hidden(target)
    os.rename(target, backup)
    return backup


def _sync_directory(directory: Path) -> None:
    try:
        fd = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass  # not every file system can, and the files themselves are safe
    finally:
        os.close(fd)


def _explain(error: OSError, target: Path) -> LampeError:
    directory = target.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LampeError(
            f"the disk is full: {target} does not fit into {os.path.abspath(directory)}; "
            "free some space or give an output path on another disk"
        )
    if error.errno == errno.EFBIG:
        return LampeError(
            f"{target} becomes larger than the file system or the process limit (ulimit -f) "
            "allows; give an output path on another disk or raise the limit"
        )
    if error.errno == errno.ENOENT and not os.path.isdir(directory):
        return LampeError(f"there is no directory {directory}; make it or give another output path")
    return LampeError(f"cannot write {target}: {error.strerror}; give another output path")
