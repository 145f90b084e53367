"""The journal of a chat: what was said is on the disk before the next thing is said.

A file of lines, each a JSON object: with what the conversation is had ("opened"), the text of a
document ("document"), the user's line with the documents that go along ("said"), the answer to it
("answered"), documents that wait for a line ("pending"). Lines are appended and synced one by one:
whatever ends the program, even a power failure, costs at most the answer under way. What a user has
forgotten (/drop, /reset) is taken out of the file: it is written anew then, without it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..container import paths
from ..container.copying import write_all
from ..container.leftovers import hidden_path, remove_leftovers
from ..container.record import sync_directory
from ..errors import LampeError
from ..shown import shown
from .documents import Document
from .kept import (
    FORMAT,
    VERSION,
    WRONG,
    Conversation,
    check_version,
    fingerprint,
    moment,
    reference,
    referred,
)
from .setting import Setting
from .turn import Talk, Turn

try:
    import fcntl
except ImportError:  # Windows: two programs may go on with one chat, and mix their lines
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".jsonl"
TEXT = b'{"event": "document"'  # how the line of a text begins: it may be long

OnNote = Callable[[str], None]


class Journal:
    """Keeps one chat in a file of its own, as long as the object lives or until `close()`.

    folder   where; made when there is something to keep
    started  when the conversation began, seconds since 1970; None: now
    on_note  called with a sentence where the disk takes no more, and when it does again. That is
             no error: the conversation goes on
    """

    def __init__(
        self, folder: Path, on_note: OnNote = lambda text: None, started: float | None = None
    ) -> None:
        self.folder = folder
        self.started = time.time() if started is None else started
        self.id = ""
        self.on_note = on_note
        self._is_behind = False  # said already
        self._fd: int | None = None
        self._end = 0  # bytes that are known to be whole
        self._texts: set[str] = set()
        self._kept: Conversation | None = None  # what the file says, None where that is unknown

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let others go on with the chat."""
        fd, self._fd = self.__dict__.get("_fd"), None
        if fd is not None:
            os.close(fd)

    @property
    def is_there(self) -> bool:
        """Whether there is a file by now."""
        return self._fd is not None

    @classmethod
    def resume(
        cls, path: Path, on_note: OnNote = lambda text: None
    ) -> tuple[Journal, Conversation]:
        """Go on with a journal: the conversation so far, and what keeps the rest of it.

        Raises LampeError where it cannot be read, is damaged, or another program has it open.
        """
        journal = cls(path.parent, on_note)
        journal._fd = open_alone(path)
        found, journal._texts, journal._end = _replay(_whole(journal._fd, path), path)
        journal.id, journal.started = found.id, found.started
        journal._kept = _copy(found, found.setting)
        return journal, found

    def update(self, talk: Talk, setting: Setting) -> None:
        """Have the file say what the conversation is now; called after each change of it."""
        kept, self._kept = self._kept, None  # until it is written, and interrupted by nothing
        try:
            lines = None if kept is None or self._fd is None else _news(kept, talk, setting)
            if lines is None:
                self._write_anew(talk, setting)
            elif lines:
                self._append(lines)
        except OSError as error:
            self._fall_behind(error)
            return
        self._kept = _copy(talk, setting)
        if self._is_behind:
            self._is_behind = False
            self.on_note("the chat is kept again, all of it")

    def _fall_behind(self, error: OSError) -> None:
        if self._fd is not None:
            try:
                os.ftruncate(self._fd, self._end)  # what was written of a line frees its space
            except OSError:
                pass
        if not self._is_behind:
            self._is_behind = True
            self.on_note(
                f"the chat goes on, but from here on it is not kept: cannot write to "
                f"{self.folder}: {error.strerror}; free some space there or put it right, or use "
                "/save FILE"
            )

    def _append(self, lines: Sequence[_Line]) -> None:
        assert self._fd is not None
        texts = set(self._texts)
        data = _encoded(lines, texts)
        os.ftruncate(self._fd, self._end)  # a line that something cut off
        write_all(self._fd, data, self._end)
        os.fsync(self._fd)
        self._end += len(data)
        self._texts = texts

    def _write_anew(self, talk: Talk, setting: Setting) -> None:
        """Replace the file by one of the conversation as it is; none where nothing is left."""
        if not talk.turns and not talk.pending and talk.unsent is None:
            if self.id:
                (self.folder / (self.id + SUFFIX)).unlink(missing_ok=True)
                sync_directory(self.folder)
            self.close()
            self._texts, self._end = set(), 0
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        self.id = self.id or _new_id(self.folder)
        header = {"format": FORMAT, "version": VERSION, "id": self.id, "started": self.started}
        texts: set[str] = set()
        lines = [_Line(header), _Line({"event": "opened", **setting.as_json()}), *_all_of(talk)]
        data = _encoded(lines, texts)
        hidden = hidden_path(self.folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        fd = os.open(hidden, flags, 0o600)
        try:
            if not _lock(fd):  # who removes what others left took it for that
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            write_all(fd, data, 0)
            os.fsync(fd)
            os.replace(hidden, self.folder / (self.id + SUFFIX))
        except BaseException:
            os.close(fd)
            hidden.unlink(missing_ok=True)
            raise
        self.close()
        self._fd, self._texts, self._end = fd, texts, len(data)
        sync_directory(self.folder)


class _Line:
    """A line to come, and the documents whose texts have to stand before it."""

    def __init__(self, value: dict[str, Any], documents: Sequence[Document] = ()) -> None:
        self.value = value
        self.documents = documents


def _said(line: str, documents: Sequence[Document]) -> _Line:
    value = {"event": "said", "line": line, "documents": [*map(reference, documents)]}
    return _Line(value, documents)


def _pending(documents: Sequence[Document]) -> _Line:
    return _Line({"event": "pending", "documents": [*map(reference, documents)]}, documents)


def _all_of(talk: Talk) -> list[_Line]:
    lines = []
    for turn in talk.turns:
        lines += [_said(turn.line, turn.documents), _answered(turn)]
    return lines + _waiting(talk)


def _answered(turn: Turn) -> _Line:
    return _Line({"event": "answered", "answer": turn.answer})


def _waiting(talk: Talk) -> list[_Line]:
    if talk.unsent is not None:
        return [_said(talk.unsent, talk.pending)]
    return [_pending(talk.pending)] if talk.pending else []


def _news(kept: Conversation, talk: Talk, setting: Setting) -> list[_Line] | None:
    """The lines that the file lacks; None where it says what is no longer so."""
    lines = [] if kept.setting == setting else [_Line({"event": "opened", **setting.as_json()})]
    n = len(kept.turns)
    if talk.turns[:n] != kept.turns:
        return None
    unsent, pending = kept.unsent, kept.pending
    for turn in talk.turns[n:]:
        if (turn.line, list(turn.documents)) != (unsent, pending):
            lines.append(_said(turn.line, turn.documents))
        lines.append(_answered(turn))
        unsent, pending = None, []
    if (unsent, pending) == (talk.unsent, talk.pending):
        return lines
    if (talk.unsent is None and unsent is not None) or talk.pending[: len(pending)] != pending:
        return None  # something was forgotten, and goes from the file
    return lines + _waiting(talk)


def _encoded(lines: Sequence[_Line], texts: set[str]) -> bytes:
    """Lines as bytes, each text before the first that names it; `texts`: those that are there."""
    found = []
    for line in lines:
        for document in line.documents:
            key = fingerprint(document.text)
            if key not in texts:
                texts.add(key)
                found.append({"event": "document", "sha256": key, "text": document.text})
        found.append(line.value)
    # in ASCII: no byte of a text is a line's end, and stray bytes stay what they are
    return b"".join(json.dumps(each).encode() + b"\n" for each in found)


def _copy(talk: Talk, setting: Setting | None) -> Conversation:
    return Conversation(list(talk.turns), list(talk.pending), talk.unsent, setting)


def _new_id(folder: Path) -> str:
    """The time, and what tells it from another that begins in the same second."""
    while True:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        if not os.path.lexists(folder / (name + SUFFIX)):
            return name


def read_journal(path: Path) -> Conversation:
    """What a journal says; LampeError where it cannot be read or is damaged."""
    fd = _open(path, os.O_RDONLY)
    try:
        return _replay(_whole(fd, path), path)[0]
    finally:
        os.close(fd)


def is_journal(data: bytes) -> bool:
    """Whether a file's bytes begin as a journal does; a saved conversation is one JSON object."""
    try:
        first = json.loads(data.split(b"\n", 1)[0])
        return "format" in first and "turns" not in first
    except WRONG:
        return False


def open_alone(path: Path) -> int:
    """Open a journal to write to it, which nobody else then does until it is closed.

    Raises LampeError where it cannot be opened, or someone has it open so.
    """
    while True:
        fd = _open(path, os.O_RDWR)
        try:
            if not _lock(fd):
                raise LampeError(
                    f"the chat {shown(path.name.removesuffix(SUFFIX))} is open in another program; "
                    "leave it there first, or take another one ('lampe-gguf chats' lists them)"
                )
            with contextlib.suppress(FileNotFoundError):  # removed: _open says so
                if os.path.samestat(os.fstat(fd), os.stat(path)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # written anew before it was locked


def _lock(fd: int) -> bool:
    """Keep a file's lock until it is closed; False where another has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True


def _open(path: Path, flags: int) -> int:
    try:
        return paths.open_regular(path, flags)
    except OSError as error:
        raise LampeError(f"cannot open the chat {path}: {error.strerror}") from None


def _whole(fd: int, path: Path) -> bytes:
    try:
        with open(fd, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()
    except OSError as error:
        raise LampeError(f"cannot read the chat {path}: {error.strerror}") from None


def _replay(data: bytes, path: Path) -> tuple[Conversation, set[str], int]:
    """What a journal's lines say, the texts in it, and where its last whole line ends."""
    lines = data.split(b"\n")
    end = len(data) - len(lines.pop())  # behind the last line's end
    found = Conversation(id=path.name.removesuffix(SUFFIX))
    is_torn = end < len(data)
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
            if number == 1:
                check_version(value, str(path))
                found.started = moment(value["started"])
            else:
                _take(found, value, texts)
        except WRONG:
            if number < len(lines) or number == 1 or is_torn:
                way = ("what comes before is whole: keep those lines alone to go on from there"
                       if number > 2 else "there is nothing before it to go on from")
                raise LampeError(f"the chat {path} is damaged in line {number}; {way}") from None
            end -= len(line) + 1
            is_torn = True
    if not lines:
        raise LampeError(f"the chat {path} is empty; nothing of it was kept")
    if is_torn:
        found.notes.append(
            "the last entry of the chat was cut off when its program ended, and is left out"
        )
    return found, set(texts), end


def _take(found: Conversation, value: dict[str, Any], texts: dict[str, str]) -> None:
    """Have a conversation go on by a line of a journal; raises one of WRONG for none."""
    event = value["event"]
    if event == "opened":
        found.setting = Setting.from_json(value)
    elif event == "document":
        if fingerprint(value["text"]) != value["sha256"]:
            raise ValueError(value["sha256"])
        texts[value["sha256"]] = value["text"]
    elif event == "pending":
        found.pending, found.unsent = referred(value["documents"], texts), None
    elif event == "said":
        if not isinstance(value["line"], str):
            raise ValueError(value["line"])
        found.pending, found.unsent = referred(value["documents"], texts), value["line"]
    elif event == "answered":
        if found.unsent is None or not isinstance(value["answer"], str):
            raise ValueError(value["answer"])
        found.turns.append(Turn(tuple(found.pending), found.unsent, value["answer"]))
        found.pending, found.unsent = [], None
    else:
        raise ValueError(event)
