"""New files, put in place whole or not at all.

Each is written under a hidden name in its own directory, synced, and renamed; whatever ends the
work early with an exception removes what was written so far. What ends the program itself (a kill,
a power failure) leaves every name with a whole file, the old one or the new one, and hidden files
that the next run in that directory removes; of several files, it first renames those that are
still to be renamed (record.py), or all are old.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from ..errors import LampeError, UsageError
from . import record
from .copying import copy_range, write_all
from .leftovers import hidden_path, hold, look, remove_leftovers
from .positioned import BINARY, RENAMES_OPEN_FILES


@dataclasses.dataclass(eq=False)
class _Output:
    """One file to come. Whatever is made is recorded here first: an exception may come between.

    fd      open for as long as the hidden name must be kept from other runs
    backup  a hidden name of the old file, which has to come back where another output fails
    """

    target: Path
    hidden: Path
    fd: int | None = None
    is_new: bool = True  # or a link to a file that exists already
    backup: Path | None = None
    backup_fd: int | None = None
    is_due: bool = False  # the next step is the rename, or it was done


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
        self.records: list[_Output] = []  # one a folder, which stay hidden
        self.is_torn = False  # what was replaced could not be put back
        self.cleaned: set[Path] = set()

    def __enter__(self) -> NewFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _insist(self._clear)
        if isinstance(error, OSError):
            target = self.outputs[-1].target if self.outputs else Path(error.filename or "")
            raise _explain(error, target) from error

    def create(self, target: Path, mode: int = 0o666) -> int:
        """Open an empty file that will become `target`; its permissions are `mode` less umask."""
        output = self._begin(target)
        try:
            output.fd = self._open(output, mode)
        except OSError as error:
            raise _explain(error, target) from error
        return output.fd

    def link(self, source: Path, target: Path) -> bool:
        """Have `target` name the very file `source`; False where the file system cannot."""
        output = self._begin(target)
        output.is_new = False
        real = Path(os.path.realpath(source))
        output.fd = look(real)
        try:
            if output.fd is not None:
                hold(output.fd, real)  # before the hidden name is there to be removed
            os.link(real, output.hidden)
        except OSError:
            _close(output)
            self.outputs.remove(output)
            return False
        return True

    def _begin(self, target: Path) -> _Output:
        if target.parent not in self.cleaned:
            self.cleaned.add(target.parent)
            remove_leftovers(target.parent)  # which may give files their names, too
        check_target(target, self.force)
        output = _Output(target, hidden_path(target.parent))
        self.outputs.append(output)
        return output

    def _open(self, output: _Output, mode: int) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY | getattr(os, "O_CLOEXEC", 0)
        while True:
            fd = os.open(output.hidden, flags, mode)
            if hold(fd, output.hidden):
                return fd
            os.close(fd)
            output.hidden = hidden_path(output.target.parent, output.hidden.suffix)

    def commit(self) -> None:
        """Sync all files and give them their names: all of them, or none where one fails."""
        for output in self.outputs:
            if output.is_new and output.fd is not None:
                os.fsync(output.fd)
        try:
            if len(self.outputs) > 1:
                for output in self.outputs:
                    _back_up(output)
                self._write_records()
            if not RENAMES_OPEN_FILES:
                self._let_go()
            for output in self.outputs:
                check_target(output.target, self.force)
                output.is_due = True
                os.replace(output.hidden, output.target)
        except BaseException:
            _insist(self._restore)
            raise
        for directory in {output.target.parent for output in self.outputs}:
            record.sync_directory(directory)
        _insist(self._clear)

    def _let_go(self) -> None:
        """Close what is to get another name, where a system wants that; nothing is held then."""
        for output in self.outputs:
            _close(output)

    def _write_records(self) -> None:
        for directory in {output.target.parent for output in self.outputs}:
            entries = [record.entry(output.hidden, output.target, output.backup)
                       for output in self.outputs if output.target.parent == directory]
            hidden = hidden_path(directory, record.SUFFIX)
            self.records.append(_Output(hidden, hidden))
            fd = self.records[-1].fd = self._open(self.records[-1], 0o666)
            write_all(fd, record.encode(entries), 0)
            os.fsync(fd)
            record.sync_directory(directory)

    def _restore(self) -> None:
        """Give back what has been replaced: the hidden name is gone then, whoever interrupted."""
        if len(self.outputs) == 1:
            return  # one rename, which was done or was not
        for output in reversed(self.outputs):
            if not output.is_due or os.path.lexists(output.hidden):
                continue
            if output.backup is None:
                output.target.unlink(missing_ok=True)
            elif os.path.lexists(output.backup):
                try:
                    os.replace(output.backup, output.target)
                except OSError as error:
                    self.is_torn = True
                    raise _torn(output, error) from error
        for each in self.records:
            _unlink(each.hidden)  # the next run has nothing to finish

    def _clear(self) -> None:
        if not RENAMES_OPEN_FILES:
            for output in (*self.outputs, *self.records):
                _close(output)
        for output in self.outputs:
            is_replaced = output.is_due and not os.path.lexists(output.hidden)
            _unlink(output.hidden)
            if output.backup is not None and not (self.is_torn and is_replaced):
                _unlink(output.backup)
        for each in self.records:  # last: it keeps the others from being removed one by one
            if not self.is_torn:
                _unlink(each.hidden)
        for output in (*self.outputs, *self.records):
            _close(output)


def _unlink(path: Path) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # renamed; what cannot be removed now is removed by the next run


def _close(output: _Output) -> None:
    fds = (output.fd, output.backup_fd)
    output.fd = output.backup_fd = None  # at first: nothing may be closed twice
    for fd in fds:
        if fd is not None:
            os.close(fd)


def _torn(output: _Output, error: OSError) -> LampeError:
    return LampeError(
        f"cannot put the old {output.target} back: {error.strerror}; it is {output.backup}, and "
        "has to be renamed by hand"
    )


def _back_up(output: _Output) -> None:
    """A second name of the old file, which keeps its own until the new one takes it."""
    target = output.target
    if not os.path.lexists(target):
        return
    output.backup_fd = look(target)
    if output.backup_fd is not None:
        hold(output.backup_fd, target)
    output.backup = hidden_path(target.parent)
    try:
        os.link(target, output.backup, follow_symlinks=False)
    except (OSError, NotImplementedError):
        _copy(target, output)


def _copy(target: Path, output: _Output) -> None:
    # a file system without links (FAT): a copy takes its time, and a rename would for a moment
    # leave no file of that name
    assert output.backup is not None
    if target.is_symlink():
        os.symlink(os.readlink(target), output.backup)
        return
    with open(target, "rb") as old:
        status = os.fstat(old.fileno())
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY | getattr(os, "O_CLOEXEC", 0)
        if output.backup_fd is not None:
            os.close(output.backup_fd)
        fd = output.backup_fd = os.open(output.backup, flags, stat.S_IMODE(status.st_mode))
        hold(fd, output.backup)
        copy_range(old.fileno(), 0, fd, 0, status.st_size)
        os.fsync(fd)


def _insist(step: Callable[[], None]) -> None:
    """Do a step that undoes or cleans up to its end; what interrupts it (Ctrl-C) comes after it."""
    interruption: BaseException | None = None
    while True:
        try:
            step()
            break
        except Exception:
            raise
        except BaseException as error:
            interruption = error
    if interruption is not None:
        raise interruption


def write_file(
    target: Path, data: bytes, *, force: bool = False, mode: int = 0o666
) -> None:
    """Write a small file whole or not at all; UsageError where it exists, without `force`.

    mode  its permissions, less umask
    """
    with NewFiles(force) as files:
        write_all(files.create(target, mode), data, 0)
        files.commit()


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
    if error.errno == errno.EACCES and not RENAMES_OPEN_FILES:
        return LampeError(
            f"cannot write {target}: a program has it open, or it may not be written; close that, "
            "or give another output path"
        )
    return LampeError(f"cannot write {target}: {error.strerror}; give another output path")
