"""All chats that are kept: where, which there are, and one of them as text."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ..container import paths
from ..errors import LampeError, UsageError
from ..shown import shown
from .journal import SUFFIX, TEXT, Journal, OnNote, is_journal, open_alone, read_journal
from .kept import WRONG, Conversation, from_json, moment

LAST = "last"
LOCATION = "LAMPE_GGUF_CHATS"


def folder() -> Path:
    """Where journals lie: $LAMPE_GGUF_CHATS, or `lampe-gguf/chats` where the user's data are.

    Not in a cache, which anyone may empty: a conversation cannot be made again.
    """
    given = os.environ.get(LOCATION)
    if given:
        return Path(given)
    home = Path(os.path.expanduser("~"))
    if sys.platform == "darwin":
        data = home / "Library" / "Application Support"
    elif sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or "")
        if not data.is_absolute():  # as the XDG specification has it
            data = home / ".local" / "share"
    return data / "lampe-gguf" / "chats"


@dataclass(frozen=True)
class ChatEntry:
    """One of the chats that are kept.

    started, last  seconds since 1970: when it began, and when its journal was written to
    model          its name and file
    turns          that have an answer
    first_line     what the user said first, "" for nothing yet
    damage         a sentence about what is wrong with the journal, "" where nothing is

    >>> from lampe_gguf import ChatEntry, Session
    >>> with Session() as session:
    ...     entries = session.chats().result()
    >>> all(isinstance(each, ChatEntry) for each in entries)
    True
    """

    id: str
    path: str
    started: float
    last: float
    model: str
    documents: list[str]
    turns: int
    first_line: str
    damage: str = ""


def entries() -> list[ChatEntry]:
    """All chats that are kept, the one that was written to last first."""
    found = [_entry(path, last) for path, last in _journals()]
    return sorted(found, key=lambda each: each.last, reverse=True)


def _journals() -> list[tuple[Path, float]]:
    """The journals' paths, and when they were written to."""
    place = folder()
    try:
        with os.scandir(place) as listed:
            return [(place / each.name, each.stat().st_mtime) for each in listed
                    if each.name.endswith(SUFFIX) and not each.name.startswith(".")
                    and each.is_file()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LampeError(
            f"cannot list the chats in {place}: {error.strerror}; give another folder by "
            f"${LOCATION}"
        ) from None


def _entry(path: Path, last: float) -> ChatEntry:
    """An entry without reading through the documents' texts."""
    values = []
    damage = ""
    try:
        with open(path, "rb") as file:
            for line in file:
                if not line.startswith(TEXT) and line.endswith(b"\n"):  # else it was cut off
                    values.append(json.loads(line))
    except OSError as error:
        damage = f"cannot be read: {error.strerror}"
    except WRONG:
        damage = "is damaged"
    try:
        started, values = moment(values[0]["started"]), values[1:]
        said = [each for each in values if each["event"] == "said"]
        documents = [str(one["name"]) for each in values if each["event"] in ("said", "pending")
                     for one in each["documents"]]
        models = [each["model"] for each in values if each["event"] == "opened"]
        model = str(models[-1]["name"] or os.path.basename(models[-1]["path"])) if models else ""
        return ChatEntry(
            path.name.removesuffix(SUFFIX), str(path), started, last, model,
            list(dict.fromkeys(documents)),
            sum(each["event"] == "answered" for each in values),
            str(said[0]["line"]) if said else "", damage,
        )
    except WRONG:
        return ChatEntry(path.name.removesuffix(SUFFIX), str(path), last, last, "", [], 0, "",
                     damage or "is damaged")


def find(name: str) -> Path:
    """The file of a conversation: a path, "last", a chat's id, or the beginning of one.

    Raises UsageError where there is none, or several begin so.
    """
    if name == LAST:
        journals = _journals()
        if not journals:
            raise UsageError(f"no chat is kept in {folder()} yet; name a file")
        return max(journals, key=lambda each: each[1])[0]
    if name and paths.exists(Path(name)):
        return Path(name)
    found = [path for path, _ in _journals() if name and path.name.startswith(name)]
    exact = [path for path in found if path.name == name + SUFFIX]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        raise UsageError(f"{len(found)} chats begin with {shown(name)}; give more of the id")
    raise UsageError(
        f"there is neither a file nor a chat {shown(name)}; 'lampe-gguf chats' lists the chats"
    )


def read(path: Path) -> Conversation:
    """A conversation from a journal or from a file that /save wrote.

    Raises LampeError for what is neither.
    """
    try:
        fd = paths.open_regular(path)
        with open(fd, "rb") as file:
            data = file.read()
    except OSError as error:
        raise LampeError(f"cannot read {path}: {error.strerror}; give another file") from None
    if is_journal(data):
        return read_journal(path)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise LampeError(
            f"{path} is no saved conversation; give a file that /save wrote"
        ) from None
    return from_json(value, str(path))


def go_on(name: str, *, keep: bool, on_note: OnNote) -> tuple[Conversation, Journal | None]:
    """A conversation to go on with, and what keeps the rest of it.

    name  as `find` has it; a journal is gone on with, a saved file stays as it is and the chat
          gets a journal of its own
    keep  False: nothing is kept
    """
    path = find(name)
    if keep and path.name.endswith(SUFFIX) and _is_in(path, folder()):
        journal, found = Journal.resume(path, on_note)
        return found, journal
    found = read(path)
    if not keep:
        return found, None
    return found, Journal(folder(), on_note, found.started or None)


def _is_in(path: Path, place: Path) -> bool:
    return os.path.realpath(path.parent) == os.path.realpath(place)


def remove(name: str) -> None:
    """Remove a chat; `name` is its whole id. UsageError where there is none.

    Raises LampeError where it is open in another program, or cannot be removed.
    """
    paths_by_id = {path.name.removesuffix(SUFFIX): path for path, _ in _journals()}
    if name not in paths_by_id:
        raise UsageError(
            f"there is no chat {shown(name)}; 'lampe-gguf chats' lists them, with the whole ids"
        )
    path = paths_by_id[name]
    fd = open_alone(path)
    try:
        path.unlink()
    except OSError as error:
        raise LampeError(f"cannot remove {path}: {error.strerror}") from None
    finally:
        os.close(fd)


def as_markdown(found: Conversation, name: str) -> str:
    """A conversation to read; documents by their names."""
    lines = [f"# {name}", ""]
    if found.setting is not None:
        setting = found.setting
        attention = "plain RoPE" if setting.values is None else "LaMPE"
        lines += [f"With {setting.model.shown}, {attention}, temperature {setting.temperature:g}"
                  + ("" if setting.seed is None else f", seed {setting.seed}"), ""]
    if found.started:
        lines += [f"Begun {when(found.started)}", ""]
    for turn in found.turns:
        documents = "".join(f"*{shown(each.name)}, {len(each.text):,} characters*\n\n"
                            for each in turn.documents)
        lines += ["## You", "", documents + turn.line, "", "## The model", "", turn.answer, ""]
    if found.unsent is not None:
        lines += ["## You", "", found.unsent, "", "*(not answered)*", ""]
    return "\n".join(lines)


def as_dict(entry: ChatEntry) -> dict[str, object]:
    """For JSON; times as ISO 8601 has them."""
    return {**asdict(entry), "started": _iso(entry.started), "last": _iso(entry.last)}


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def when(seconds: float) -> str:
    """A time for people, in their own zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def as_table(found: list[ChatEntry]) -> str:
    """Chats for people, one a line."""
    rows = [("id", "last used", "turns", "documents", "model", "first line")]
    for each in found:
        said = f"({each.damage})" if each.damage else _short(each.first_line, 50)
        documents = _short(os.path.basename(each.documents[0]), 20) if each.documents else "-"
        if len(each.documents) > 1:
            documents += f" +{len(each.documents) - 1}"
        rows.append((shown(each.id), when(each.last), str(each.turns), documents,
                     _short(each.model, 30) or "-", said))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _short(text: str, limit: int) -> str:
    """The begin of a text, in one line that can be shown."""
    line = shown(" ".join(text[: 2 * limit].split()))
    return line if len(line) <= limit else line[: limit - 1] + "\u2026"
