"""Which files are meant by what a user names: files, folders, and patterns."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ..errors import LampeError, UsageError
from ..shown import shown
from .kinds import BEGIN, is_text, kind_of

MOST_FILES = 10_000  # more than anybody wants to ask about: a folder named by mistake


@dataclass(frozen=True)
class Found:
    """A file to be read, "-" for standard input, and the name that the model is told.

    in_folder  it was not named itself: what is wrong with it is said, and the others are read
    """

    path: str
    label: str
    in_folder: bool = False


@dataclass
class Gathered:
    """The files, and how many of the folders' were left: those hidden, and those without text.

    A hidden folder counts as one.
    closed  folders within one that may not be looked into
    """

    files: list[Found]
    hidden: int = 0
    binary: int = 0
    closed: list[str] = field(default_factory=list)

    def said(self) -> str | None:
        """A sentence about those, None where there are none."""
        parts = [f"{count:,} {what}" for count, what in (
            (self.hidden, "hidden"), (self.binary, "without text")) if count]
        return f"not read of the folders: {', '.join(parts)}" if parts else None


def gather(names: Iterable[str]) -> Gathered:
    """The files that names mean: a folder's, those below it too, and those that a pattern fits.

    Each file once, a folder's in natural order (2 before 10). Raises UsageError where standard
    input is named twice, LampeError for a folder without documents and a pattern that fits none.
    """
    listed = list(names)
    if listed.count("-") > 1:
        raise UsageError("standard input (-) can be read only once")
    found = Gathered([])
    for name in listed:
        if name == "-":
            found.files.append(Found("-", "standard input"))
        elif _is_folder(name):
            _add_folder(found, name)
        elif not os.path.lexists(name) and glob.has_magic(name):
            _add_matches(found, name)
        else:
            found.files.append(Found(name, shown(name)))
    return replace(found, files=_each_once(found.files))


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key to sort by: numbers by their value, letters without regard to case."""
    parts = re.split(r"([0-9]+)", name)
    key = [(0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part.lower())
           for part in parts]
    return [*key, (-1, 0, name)]


def _add_matches(found: Gathered, pattern: str) -> None:
    matches: list[str] = []
    with contextlib.suppress(ValueError):  # a NUL in it
        matches = sorted(glob.glob(pattern, recursive=True), key=natural)
    if not matches:
        raise LampeError(f"no file is named like {shown(pattern)}; give the path of one")
    for match in matches:
        if not _is_folder(match):
            found.files.append(Found(match, shown(match)))
        elif "**" not in pattern:  # which finds what is in them itself
            _add_folder(found, match)


def _add_folder(found: Gathered, folder: str) -> None:
    before = len(found.files)
    hidden = binary = 0
    for path in _walk(folder, found.closed):
        inside = os.path.relpath(path, folder)
        if any(part.startswith(".") for part in inside.split(os.sep)):
            hidden += 1
        elif not _may_be_read(path):
            binary += 1
        else:
            label = shown(inside.replace(os.sep, "/"))
            found.files.append(Found(path, label, in_folder=True))
        if len(found.files) > MOST_FILES:
            raise LampeError(f"{shown(folder)} has more than {MOST_FILES:,} documents; name a "
                             "folder within it")
    found.hidden += hidden
    found.binary += binary
    if len(found.files) == before:
        inside = ""
        if hidden or binary:
            inside = f" (but {hidden:,} hidden files and {binary:,} without text)"
        raise LampeError(f"the folder {shown(folder)} has no documents{inside}; give one that has")


def _walk(folder: str, closed: list[str]) -> Iterator[str]:
    """The files of a folder and of those in it, and hidden folders; no link to one is followed.

    closed  gets a sentence for each folder in it that cannot be read
    """

    def fail(error: OSError) -> None:
        what = f"cannot read the folder {shown(error.filename)}: {error.strerror}"
        if error.filename == folder:
            raise LampeError(what)
        closed.append(what)

    for place, folders, files in os.walk(folder, onerror=fail):
        hidden = [each for each in folders if each.startswith(".")]
        folders[:] = sorted(set(folders) - set(hidden), key=natural)
        yield from (os.path.join(place, each) for each in sorted([*files, *hidden], key=natural))


def _may_be_read(path: str) -> bool:
    """Whether it begins like a document; what cannot be opened is said when it is read."""
    if not os.path.isfile(path):  # a pipe, a socket: reading would wait for ever
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(BEGIN)
    except OSError:
        return True
    if head.startswith(b"PK\x03\x04"):
        return os.path.splitext(path)[1].lower() not in (".zip", ".jar", ".whl", ".npz", ".xlsx",
                                                         ".pptx", ".apk")
    try:
        kind = kind_of(head, "")
    except LampeError:
        return False
    return kind != "text" or is_text(head)


def _is_folder(name: str) -> bool:
    try:
        return os.path.isdir(name)
    except ValueError:  # a NUL in it
        return False


def _each_once(files: list[Found]) -> list[Found]:
    """Without those that were found before; where two have one name, both have their paths."""
    unique: dict[str, Found] = {}
    for each in files:
        unique.setdefault(os.path.abspath(each.path) if each.path != "-" else "-", each)
    count = Counter(each.label for each in unique.values())
    return [each if count[each.label] == 1 else replace(each, label=shown(each.path))
            for each in unique.values()]
