"""The folder of readings: two files each, ID.state and ID.json, private to the user.

ID.state is what llama.cpp writes for a sequence, tokens first. ID.json says what it depends on, how
long it is and what its checksum is; it is put in place last, so that there is no entry whose state
is not whole. Neither is changed after that; the time of the JSON is when the entry was used last.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..container import paths
from ..container.atomic import NewFiles
from ..container.copying import write_all
from ..container.leftovers import remove_leftovers
from ..errors import LampeError, UsageError
from .checksum import checksum

FORMAT = 1
STATE, FACTS = ".state", ".json"
MOST_FACTS = 1 << 20  # bytes of an ID.json
OLD = 3600.0  # seconds after which a state without facts is nobody's
SPARE = 1 << 26  # bytes of the disk that are left to others

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Reading:
    """One entry.

    id         its name in the folder, 8 hexadecimal digits
    key        what its state depends on
    tokens     how many were read
    bytes      of its state
    checksum   of its state
    documents  names of those that were read
    model      name of the model's file
    made       when it was read, seconds since 1970
    seconds    that reading took; 0 where it is not known
    used       when it was used last
    """

    id: str
    key: dict[str, Any]
    tokens: int
    bytes: int
    checksum: str
    documents: tuple[str, ...]
    model: str
    made: float
    seconds: float
    used: float = 0.0


class Store:
    """The entries in a folder, which is made when the first is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entries(self) -> list[Reading]:
        """All of them, the one used last first. What is no entry is left out.

        None where there is no folder; OSError where it cannot be read, or is another user's: a
        checksum is no signature.
        """
        try:
            names = [name for name in os.listdir(self.folder) if name.endswith(FACTS)]
        except FileNotFoundError:
            return []
        self._require_own()
        found = [entry for name in names if (entry := self._facts(name.removesuffix(FACTS)))]
        return sorted(found, key=lambda entry: -entry.used)

    def path(self, entry: Reading) -> Path:
        """The file of its state."""
        return self.folder / (entry.id + STATE)

    def touch(self, entry: Reading) -> None:
        """It was used just now."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / (entry.id + FACTS))

    @contextlib.contextmanager
    def opened(self, entry: Reading) -> Iterator[int | None]:
        """Its state as a descriptor, for as long as the context lasts; None where it is gone.

        Whoever removes it meanwhile removes the name alone.
        """
        fd = None
        with contextlib.suppress(OSError, UsageError):
            fd = paths.open_regular(self.path(entry))
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)

    def is_whole(self, entry: Reading, fd: int, on_progress: OnProgress | None = None) -> bool:
        """Whether its open state is what was written, to the bit."""
        try:
            if os.fstat(fd).st_size != entry.bytes:
                return False
            return checksum(fd, entry.bytes, on_progress) == entry.checksum
        except OSError:  # a bad sector
            return False

    def remove(self, entry: Reading) -> int:
        """Remove it and give the bytes that it took. The state first: facts alone are nothing."""
        for suffix in (STATE, FACTS):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.folder / (entry.id + suffix))
        return entry.bytes

    def make_room(self, size: int, limit: int) -> None:
        """Remove those used longest ago until `size` bytes more are within `limit`."""
        entries = self.entries()
        total = sum(entry.bytes for entry in entries) + size
        for entry in reversed(entries):
            if total <= limit:
                break
            with contextlib.suppress(OSError):
                total -= self.remove(entry)

    def require_space(self, size: int) -> None:
        """OSError where the disk has no room for `size` bytes more."""
        self._make_folder()
        if shutil.disk_usage(self.folder).free < size + SPARE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def add(
        self, write: Callable[[Path], None], *, key: dict[str, Any], tokens: int,
        documents: tuple[str, ...], model: str, seconds: float,
    ) -> Reading:
        """Keep a state that `write` writes into a file: whole, or not at all.

        OSError where the disk does not take it, and whatever `write` raises.
        """
        self._make_folder()
        self.clean()
        number = secrets.token_hex(4)
        with NewFiles() as files:
            # a file for each entry, never written to again: nobody loads one half and half
            fd = files.create(self.folder / (number + STATE), 0o600)
            write(files.outputs[0].hidden)
            size = os.fstat(fd).st_size
            found = checksum(fd, size)
            entry = Reading(number, key, tokens, size, found, documents, model,
                            made=time.time(), seconds=seconds, used=time.time())
            facts = files.create(self.folder / (number + FACTS), 0o600)
            write_all(facts, _encode(entry), 0)
            files.commit()
        return entry

    def clean(self) -> None:
        """Remove what a process that was killed has left, and what is no entry."""
        remove_leftovers(self.folder)
        try:
            with os.scandir(self.folder) as scanned:
                names = {each.name: each.stat(follow_symlinks=False).st_mtime for each in scanned}
        except OSError:
            return
        for name, changed in names.items():
            stem, suffix = os.path.splitext(name)
            if suffix not in (STATE, FACTS) or not _is_id(stem):
                continue
            # whoever is between its two names has a moment, not an hour
            is_alone = suffix == STATE and stem + FACTS not in names
            if is_alone and time.time() - changed < OLD:
                continue
            if is_alone or self._facts(stem) is None:
                with contextlib.suppress(OSError):
                    os.unlink(self.folder / name)

    def _make_folder(self) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)
        self._require_own()
        if os.stat(self.folder).st_mode & 0o077:
            os.chmod(self.folder, 0o700)  # made by hand, or by a careless copy

    def _require_own(self) -> None:
        if hasattr(os, "getuid") and os.stat(self.folder).st_uid != os.getuid():
            raise OSError(errno.EPERM, "it belongs to another user")

    def _facts(self, number: str) -> Reading | None:
        """An entry whose facts are whole, and whose state is there."""
        if not _is_id(number):
            return None
        path = self.folder / (number + FACTS)
        try:
            with open(paths.open_regular(path), "rb") as file:
                data = file.read(MOST_FACTS)
                used = os.fstat(file.fileno()).st_mtime
            state = os.stat(self.folder / (number + STATE))
        except (OSError, UsageError):  # which is for a pipe: reading would wait for ever
            return None
        if not stat.S_ISREG(state.st_mode) or not state.st_size:
            return None
        return _decode(data, number, used)


def _is_id(name: str) -> bool:
    return len(name) == 8 and not set(name) - set("0123456789abcdef")


def _encode(entry: Reading) -> bytes:
    """Its facts, with a checksum of their own."""
    facts = {name: value for name, value in asdict(entry).items() if name != "used"}
    facts["format"] = FORMAT
    return json.dumps({"facts": facts, "checksum": _sum(facts)}, indent=1).encode()


def _sum(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _decode(data: bytes, number: str, used: float) -> Reading | None:
    """None for what is no entry of this format, or was changed."""
    try:
        whole = json.loads(data)
        facts = whole["facts"]
        if whole["checksum"] != _sum(facts):
            return None
        if facts.pop("format") != FORMAT or facts["id"] != number:
            return None
        known = {field.name for field in fields(Reading)} - {"used"}
        if set(facts) != known:
            return None
        return Reading(**{**facts, "documents": tuple(facts["documents"])}, used=used)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def reason(error: BaseException) -> str:
    """Why the disk did not take a reading, in a few words."""
    cause = error.__cause__ if isinstance(error, LampeError) else error
    if isinstance(cause, OSError):
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the disk is full"
        if cause.errno == errno.EFBIG:
            return "the file becomes larger than the system allows"
        return cause.strerror or str(cause)
    return str(error)
