"""From an edited source tree back to patches/: the diffs made anew, the overlay copied back."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from .report import Failure
from .sdist import Sdist
from .series import Patch, overlay_files, parse_patch, read_series, split_lines
from .tree import (
    VERSION_FILE,
    may_be_new_source,
    source_files,
    without_version,
    write_if_changed,
)

_MOST_CONTEXT = 8


@dataclass
class Refreshed:
    """What a refresh did, by file in patches/."""

    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def unified_diff(path: str, old: bytes, new: bytes, context: int) -> bytes:
    """The body of a diff of one file, made by git, with a/ and b/ paths."""
    with tempfile.TemporaryDirectory() as scratch:
        before, after = Path(scratch, "before"), Path(scratch, "after")
        before.write_bytes(old)
        after.write_bytes(new)
        command = ["git", "-c", "core.autocrlf=false", "diff", "--no-index", "--no-color"]
        command += ["--no-ext-diff", "--text", f"-U{context}", str(before), str(after)]
        try:
            made = subprocess.run(command, capture_output=True, cwd=scratch)
        except FileNotFoundError:
            raise Failure("refresh needs git; install it.") from None
    body = made.stdout[made.stdout.index(b"\n@@ ") + 1 :]
    # git names the function that a hunk is in; that moves with code that is not ours.
    body = re.sub(rb"(?m)^(@@ -\S+ \+\S+ @@).*$", rb"\1", body)
    return b"--- a/%b\n+++ b/%b\n%b" % (path.encode(), path.encode(), body)


def least_diff(path: str, old: bytes, new: bytes) -> bytes:
    """The diff with the least context at which each hunk fits the old file in one place only."""
    lines = split_lines(old)
    for context in range(1, _MOST_CONTEXT + 1):
        made = unified_diff(path, old, new, context)
        hunks = parse_patch(path, made).files[0].hunks
        if all(_places(lines, hunk.old) == 1 for hunk in hunks):
            return made
    return unified_diff(path, old, new, 3)


def _places(lines: list[bytes], wanted: tuple[bytes, ...]) -> int:
    first = [at for at, line in enumerate(lines) if wanted and line == wanted[0]]
    return sum(tuple(lines[at : at + len(wanted)]) == wanted for at in first)


def _edited_tree(sdist: Sdist, root: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Upstream files that the tree changed, and files that upstream does not have."""
    upstream = sdist.names()
    here = set(source_files(root))
    pristine = sdist.read(upstream)
    changed: dict[str, bytes] = {}
    for path in sorted(here & upstream):
        data = (root / path).read_bytes()
        if path == VERSION_FILE:
            data = without_version(data)
        if data != pristine[path]:
            changed[path] = data
    new = {
        path: (root / path).read_bytes()
        for path in sorted(here - upstream)
        if may_be_new_source(path)
    }
    return changed, new


def _deal_out(
    series: list[Patch], changed: dict[str, bytes], new_patch: str | None, into: str | None
) -> dict[str, list[str]]:
    """Which patch holds which files: those it has, and the unclaimed ones where they are told."""
    files = {
        patch.name: [diff.path for diff in patch.files if diff.path in changed]
        for patch in series
    }
    unclaimed = sorted(changed.keys() - {path for paths in files.values() for path in paths})
    if unclaimed:
        target = new_patch or into
        if target is None:
            raise Failure(
                f"no patch holds {', '.join(unclaimed)}: give --into NNNN-name.patch, or "
                '--new name "why it is needed".'
            )
        if into and into not in files:
            raise Failure(f"patches/series does not list {into}.")
        files.setdefault(target, []).extend(unclaimed)
    elif new_patch:
        raise Failure(f"every change belongs to a patch already; nothing is left for {new_patch}.")
    return files


def refresh(
    sdist: Sdist,
    patches: Path,
    root: Path,
    *,
    new: tuple[str, str] | None = None,
    into: str | None = None,
) -> Refreshed:
    """Make patches/ say what the tree at `root` holds.

    `new` is the name and the reason of a patch for upstream files that no patch claims yet, not
    offered upstream;
    `into` names an existing one for them. A patch whose files are all as upstream has them
    is removed.
    """
    series = read_series(patches)
    changed, added = _edited_tree(sdist, root)
    why = {patch.name: patch.why for patch in series}
    new_name = None
    if new:
        last = max((int(patch.name[:4]) for patch in series), default=0)
        new_name = f"{last + 1:04d}-{new[0]}.patch"
        if not re.fullmatch(r"\d{4}-[a-z0-9][a-z0-9-]*\.patch", new_name):
            raise Failure(f"{new[0]!r} is no name for a patch; use lower case and dashes.")
        why[new_name] = new[1]
    files = _deal_out(series, changed, new_name, into)
    pristine = sdist.read(changed)
    bodies = {
        name: [least_diff(path, pristine[path], changed[path]) for path in paths]
        for name, paths in files.items()
    }
    done = Refreshed()
    for name, body in bodies.items():
        if body:
            header = _header(patches / name, why[name])
            if write_if_changed(patches / name, header + b"".join(body)):
                done.written.append(name)
        else:
            (patches / name).unlink()
            done.removed.append(name)
    _write_series(patches, [name for name, body in bodies.items() if body], done)
    _copy_overlay(patches, added, done)
    return done


def _header(path: Path, why: str) -> bytes:
    """The text above the first diff, kept as it is where the patch exists."""
    if path.exists():
        return re.split(rb"(?m)^(?=diff --git |--- )", path.read_bytes())[0]
    return why.encode() + b"\nNot offered upstream.\n\n"


def _write_series(patches: Path, names: list[str], done: Refreshed) -> None:
    path = patches / "series"
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [
        line for line in old if (name := line.split("#", 1)[0].strip()) in names or not name
    ]
    listed = {line.split("#", 1)[0].strip() for line in kept}
    text = "".join(f"{line}\n" for line in [*kept, *(n for n in names if n not in listed)])
    if write_if_changed(path, text.encode()):
        done.written.append("series")


def _copy_overlay(patches: Path, added: dict[str, bytes], done: Refreshed) -> None:
    for path in overlay_files(patches).keys() - added.keys():
        (patches / "overlay" / path).unlink()
        done.removed.append(f"overlay/{path}")
    for path, data in added.items():
        if write_if_changed(patches / "overlay" / path, data):
            done.written.append(f"overlay/{path}")
