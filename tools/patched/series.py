"""The series of small diffs: read it, apply it, find what is wrong with it.

A patch applies only where it says: every context and removed line must be at its stated
line number, to the byte. No fuzz, no offset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .report import Failure
from .sdist import Sdist

_OFFERED = re.compile(r"Not offered upstream\b|Offered upstream: \S")
_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_NAME = re.compile(r"\d{4}-[a-z0-9][a-z0-9-]*\.patch")
_NO_NEWLINE = b"\\ No newline at end of file"


@dataclass(frozen=True)
class Hunk:
    """Lines to find at `start` (counted from 0) and the lines that replace them."""

    start: int
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]


@dataclass(frozen=True)
class FileDiff:
    """All hunks of one upstream file; `path` counts from the root of the source tree."""

    path: str
    hunks: tuple[Hunk, ...]


@dataclass(frozen=True)
class Patch:
    """One numbered diff: its name, the sentence on top that says why, and its files."""

    name: str
    why: str
    files: tuple[FileDiff, ...]

    @property
    def is_fix(self) -> bool:
        """Whether it mends upstream itself, so that the stock build needs it too."""
        return self.name[5:].startswith("fix-")


def read_series(patches: Path) -> list[Patch]:
    """All patches in the order of the file `series`; '#' starts a comment there."""
    series = patches / "series"
    if not series.exists():
        return []
    lines = series.read_text(encoding="utf-8").splitlines()
    names = [name for line in lines if (name := line.split("#", 1)[0].strip())]
    for name in names:
        if not _NAME.fullmatch(name):
            raise Failure(f"patches/series: {name!r} is not named like 0001-some-words.patch.")
        if not (patches / name).exists():
            raise Failure(f"patches/series lists {name}, but there is no such file in patches/.")
    return [parse_patch(name, (patches / name).read_bytes()) for name in names]


def parse_patch(name: str, text: bytes) -> Patch:
    """Read one unified diff with paths a/... and b/...; raises Failure where it is malformed."""
    lines = text.split(b"\n")
    if lines and lines[-1] == b"":
        lines.pop()
    files: list[FileDiff] = []
    why: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.startswith(b"--- "):
            if line.startswith((b"@@ ", b"rename ", b"deleted file", b"new file", b"Binary")):
                raise Failure(f"{name}, line {at + 1}: only plain edits of files can be applied.")
            if not files and not line.startswith((b"diff --git ", b"index ")):
                why.append(line.decode("utf-8", "replace").strip())
            elif files and line.strip() and not line.startswith((b"diff --git ", b"index ")):
                raise Failure(f"{name}, line {at + 1}: stray text between diffs.")
            at += 1
            continue
        path = _path(name, line, lines[at + 1] if at + 1 < len(lines) else b"")
        hunks, at = _hunks(name, lines, at + 2)
        files.append(FileDiff(path, tuple(hunks)))
    return Patch(name, " ".join(" ".join(why).split()), tuple(files))


def _path(name: str, minus: bytes, plus: bytes) -> str:
    old, new = (line[4:].split(b"\t")[0].strip().decode() for line in (minus, plus))
    if not plus.startswith(b"+++ ") or not old.startswith("a/") or old[2:] != new[2:]:
        raise Failure(
            f"{name}: {old!r} and {new!r} are not one upstream file under a/ and b/; "
            "new files belong in patches/overlay."
        )
    path = old[2:]
    if path.startswith("/") or ".." in path.split("/"):
        raise Failure(f"{name}: {path!r} leaves the source tree.")
    return path


def _hunks(name: str, lines: list[bytes], at: int) -> tuple[list[Hunk], int]:
    hunks: list[Hunk] = []
    while at < len(lines) and (head := _HUNK.match(lines[at])):
        old_left, new_left = (int(head[g]) if head[g] else 1 for g in (2, 4))
        # An empty old side is numbered by the line before it.
        start = int(head[1]) - (1 if old_left else 0)
        old: list[bytes] = []
        new: list[bytes] = []
        first = at + 1
        at += 1
        while old_left or new_left:
            if at >= len(lines):
                raise Failure(f"{name}, line {first}: the hunk ends too early.")
            mark, line = lines[at][:1], lines[at][1:] + b"\n"
            if mark in (b" ", b"-", b""):
                old.append(line)
                old_left -= 1
            if mark in (b" ", b"+", b""):
                new.append(line)
                new_left -= 1
            if mark not in (b" ", b"-", b"+", b"") or old_left < 0 or new_left < 0:
                raise Failure(f"{name}, line {at + 1}: the hunk's line counts do not hold.")
            at += 1
            if at < len(lines) and lines[at].startswith(_NO_NEWLINE):
                for side, marks in ((old, b" -"), (new, b" +")):
                    if mark in marks:
                        side[-1] = side[-1][:-1]
                at += 1
        hunks.append(Hunk(start, tuple(old), tuple(new)))
    if not hunks:
        raise Failure(f"{name}, line {at + 1}: no hunk follows the file's name.")
    return hunks, at


def apply_diff(name: str, diff: FileDiff, data: bytes) -> bytes:
    """The patched contents of one file; raises Failure where a line is not as stated."""
    lines = split_lines(data)
    result: list[bytes] = []
    at = 0
    for hunk in diff.hunks:
        if hunk.start < at:
            raise Failure(f"{name}: {diff.path}: hunks overlap or are out of order.")
        result += lines[at : hunk.start]
        here = lines[hunk.start : hunk.start + len(hunk.old)]
        if tuple(here) != hunk.old:
            wrong = next(
                (n for n, (a, b) in enumerate(zip(here, hunk.old, strict=False)) if a != b),
                len(here),
            )
            raise Failure(
                f"{name} does not apply: {diff.path}, line {hunk.start + wrong + 1} "
                "is not the line that the patch names."
            )
        result += hunk.new
        at = hunk.start + len(hunk.old)
    return b"".join(result + lines[at:])


def split_lines(data: bytes) -> list[bytes]:
    """Lines with their line feeds; a carriage return is an ordinary byte."""
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def overlay_files(patches: Path) -> dict[str, bytes]:
    """The new files to lay onto the source tree, by their path in it."""
    overlay = patches / "overlay"
    return {
        path.relative_to(overlay).as_posix(): path.read_bytes()
        for path in sorted(overlay.rglob("*"))
        if path.is_file() and path.name != ".gitkeep" and "__pycache__" not in path.parts
    }


def problems(sdist: Sdist, patches: Path) -> list[str]:
    """Everything that is wrong with patches/ against the pristine source, one sentence each."""
    found: list[str] = []
    series: list[Patch] = []
    try:
        series = read_series(patches)
    except Failure as failure:
        found.append(str(failure))
    stray = {path.name for path in patches.glob("*.patch")} - {patch.name for patch in series}
    if series or not found:
        found += [f"patches/{name} is not listed in patches/series." for name in sorted(stray)]
    names = [patch.name for patch in series]
    if names != sorted(names):
        found.append("patches/series is not in the order of the patches' numbers.")
    pristine = sdist.read({diff.path for patch in series for diff in patch.files})
    owner: dict[str, str] = {}
    for patch in series:
        if len(patch.why) < 20:
            found.append(f"{patch.name} has no sentence on top that says why it is there.")
        elif not _OFFERED.search(patch.why):
            found.append(
                f"{patch.name} does not say whether it was offered upstream: "
                "'Not offered upstream.' or 'Offered upstream: ADDRESS'."
            )
        if not patch.files:
            found.append(f"{patch.name} changes nothing.")
        for diff in patch.files:
            if diff.path in owner:
                found.append(
                    f"{patch.name} and {owner[diff.path]} both change {diff.path}; "
                    "each upstream file belongs to one patch."
                )
                continue
            owner[diff.path] = patch.name
            if diff.path not in pristine:
                found.append(f"{patch.name} changes {diff.path}, which upstream does not have.")
                continue
            try:
                apply_diff(patch.name, diff, pristine[diff.path])
            except Failure as failure:
                found.append(str(failure))
    upstream = sdist.names()
    found += [
        f"patches/overlay/{path} would replace an upstream file; make it a patch instead."
        for path in overlay_files(patches)
        if path in upstream
    ]
    return found


def patched_files(sdist: Sdist, patches: Path, *, fixes_only: bool = False) -> dict[str, bytes]:
    """Contents of every file that patches/ adds or changes; raises Failure on any problem.

    With `fixes_only`, of those that mend upstream itself.
    """
    wrong = problems(sdist, patches)
    if wrong:
        raise Failure(wrong[0])
    series = [patch for patch in read_series(patches) if patch.is_fix or not fixes_only]
    pristine = sdist.read({diff.path for patch in series for diff in patch.files})
    changed = {
        diff.path: apply_diff(patch.name, diff, pristine[diff.path])
        for patch in series
        for diff in patch.files
    }
    return changed if fixes_only else {**overlay_files(patches), **changed}
