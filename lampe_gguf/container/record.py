"""The record of a set of files: what is to get which name, while they get them.

Several renames are no one step: a kill between two of them leaves old parts beside new ones, which
load together and are no model. So a record is on the disk before the first rename, when all new
files are whole. Who finds one that a dead program left finishes the set, where every name still
has the old file or the new one; elsewhere someone has been there since, and all is left as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from .positioned import read_at

SUFFIX = ".set"
NAME = re.compile(r"\.lampe-gguf-[0-9a-f]{16}\.set")
HIDDEN = re.compile(r"\.lampe-gguf-[0-9a-f]{16}\.tmp")
MOST_BYTES = 1 << 26  # 100,000 parts, which is more than their names can number


@dataclass(frozen=True)
class Entry:
    """One file of a set; all names are those in the record's own folder.

    hidden  the new file's first name
    backup  a second name of the old file, None where there was none
    new     identity() of the new file; old  of the one that it replaces
    """

    hidden: str
    target: str
    backup: str | None
    new: list[int] | None
    old: list[int] | None


def identity(path: Path) -> list[int] | None:
    """Inode and size of what has a name, None for a name that nothing has; OSError as it comes."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return [status.st_ino, status.st_size]


def entry(hidden: Path, target: Path, backup: Path | None) -> Entry:
    """The entry of a file that has not been renamed yet."""
    name = None if backup is None else backup.name
    return Entry(hidden.name, target.name, name, identity(hidden), identity(target))


def encode(entries: list[Entry]) -> bytes:
    return json.dumps([asdict(each) for each in entries]).encode()


def read(fd: int) -> list[Entry]:
    """What a record holds; [] for one that was not written to its end: no rename has begun then."""
    try:
        entries = [Entry(**each) for each in json.loads(read_at(fd, MOST_BYTES, 0))]
        for each in entries:
            if not HIDDEN.fullmatch(each.hidden) or each.target in ("", ".", ".."):
                return []
            if each.backup is not None and not HIDDEN.fullmatch(each.backup):
                return []
            if os.path.basename(each.target) != each.target:
                return []
    except (ValueError, TypeError, RecursionError):
        return []
    return entries


def names(entries: list[Entry]) -> set[str]:
    """The hidden names that a record keeps."""
    found = {each.hidden for each in entries} | {each.backup for each in entries}
    return {name for name in found if name is not None}


def settle(directory: Path, entries: list[Entry]) -> bool:
    """Finish a set, and remove its hidden names; False where they have to be kept.

    Raises OSError as it comes; the next call goes on from there.
    """
    hidden = [directory / name for name in names(entries)]
    if not _finish(directory, entries) and any(map(os.path.lexists, hidden)):
        return False
    for path in hidden:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return True


def _finish(directory: Path, entries: list[Entry]) -> bool:
    due = []
    for each in entries:
        now = identity(directory / each.target)
        if now == each.new:
            continue
        if now != each.old or identity(directory / each.hidden) != each.new:
            return False
        due.append(each)
    for each in due:
        os.replace(directory / each.hidden, directory / each.target)
    sync_directory(directory)
    return True


def sync_directory(directory: Path) -> None:
    """Have the names in a folder on the disk, where its file system can do that."""
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
