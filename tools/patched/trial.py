"""The series on another release than the pinned one: what would apply, where, and what would not.

Looser than what builds: a hunk may have moved. It fits where all its old lines stand together, as
near as can be to where the hunks before it lead. Nothing is written.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import sdist as sources
from .places import UPSTREAM, UPSTREAM_VERSION, best_python, cache_dir
from .report import Failure, run
from .sdist import Sdist
from .series import FileDiff, Hunk, Patch, overlay_files, read_series, split_lines

_VERSION = re.compile(r"\d+(\.\w+)*(\+[\w.]+)?")
_SHOWN = 60  # characters of a line


@dataclass(frozen=True)
class Result:
    """What became of one patch: its largest shift in lines, a sentence for each hunk in vain."""

    patch: str
    n_hunks: int
    shift: int
    failed: tuple[str, ...]

    def __str__(self) -> str:
        if self.failed:
            lines = "".join(f"\n    {each}" for each in self.failed)
            return f"{self.patch}: FAILS, {len(self.failed)} of {self.n_hunks} hunks{lines}"
        if self.shift:
            return f"{self.patch}: applies with offset, {abs(self.shift)} lines at most"
        return f"{self.patch}: applies"


def try_series(source: Sdist, patches: Path) -> tuple[list[Result], list[str]]:
    """Every patch of the series on a source, and the overlay's files that the source has itself."""
    series = read_series(patches)
    upstream = source.read({diff.path for patch in series for diff in patch.files})
    results = [_try_patch(patch, upstream) for patch in series]
    return results, sorted(overlay_files(patches).keys() & source.names())


def _try_patch(patch: Patch, upstream: dict[str, bytes]) -> Result:
    shift, failed = 0, []
    for diff in patch.files:
        if diff.path not in upstream:
            failed += [f"{diff.path}: hunk {number} of {len(diff.hunks)}: there is no such file"
                       for number in range(1, len(diff.hunks) + 1)]
            continue
        for found in _try_file(diff, split_lines(upstream[diff.path])):
            if isinstance(found, str):
                failed.append(found)
            else:
                shift = max(shift, found, key=abs)
    return Result(patch.name, sum(len(diff.hunks) for diff in patch.files), shift, tuple(failed))


def _try_file(diff: FileDiff, lines: list[bytes]) -> Iterator[int | str]:
    """For each hunk by how many lines it has moved, or why it does not apply."""
    shift = end = 0
    for number, hunk in enumerate(diff.hunks, 1):
        at = _nearest(lines, hunk.old, hunk.start + shift, end)
        if at is None:
            yield (f"{diff.path}, line {hunk.start + 1}: hunk {number} of {len(diff.hunks)}: "
                   + _reason(lines, hunk, hunk.start + shift, end))
        else:
            shift, end = at - hunk.start, at + len(hunk.old)
            yield shift


def _nearest(lines: list[bytes], block: Sequence[bytes], near: int, least: int) -> int | None:
    """Where the block stands in the lines, at `least` or later, nearest to `near`."""
    places = [at for at in range(least, len(lines) - len(block) + 1)
              if tuple(lines[at : at + len(block)]) == tuple(block)]
    return min(places, key=lambda at: abs(at - near), default=None)


def _reason(lines: list[bytes], hunk: Hunk, near: int, least: int) -> str:
    """The line that is another now, where most of the hunk's are."""
    if _nearest(lines, hunk.new, near, least) is not None:
        return "what it makes stands there already"
    same = {at: sum(map(bytes.__eq__, lines[at : at + len(hunk.old)], hunk.old))
            for at in range(least, len(lines))}
    at = max(same, key=lambda at: (same[at], -abs(at - near)), default=least)
    if 2 * same.get(at, 0) <= len(hunk.old):
        return "half or more of its lines are gone"
    for number, (line, old) in enumerate(zip(lines[at:], hunk.old, strict=False), at + 1):
        if line != old:
            return f"line {number} is {_show(line)}, not {_show(old)}"
    return f"the file ends with line {len(lines)}"


def _show(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def find_source(what: str) -> Sdist:
    """A source distribution by path, or by version: then fetched with pip and kept in the cache."""
    path = Path(what)
    if path.is_file():
        if not tarfile.is_tarfile(path):
            raise Failure(f"{what} is no source distribution (.tar.gz).")
        return Sdist(path)
    if not _VERSION.fullmatch(what):
        raise Failure(f"{what} is neither a version, such as {UPSTREAM_VERSION}, nor a file.")
    if what == UPSTREAM_VERSION:
        return sources.fetch()
    home = cache_dir() / "sdist"
    home.mkdir(parents=True, exist_ok=True)
    kept = home / f"{UPSTREAM}-{what}.tar.gz"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=home) as scratch:
            run([best_python(), "-m", "pip", "download", "--no-deps", "--no-binary",
                 "llama-cpp-python", "--dest", scratch, f"llama-cpp-python=={what}"],
                f"Fetching llama-cpp-python {what}", explain=_explain_pip)
            fetched = next(Path(scratch).glob("*.tar.gz"), None)
            if fetched is None:
                raise Failure(f"pip brought no source distribution of llama-cpp-python {what}.")
            shutil.move(fetched, kept)
    return Sdist(kept)


def _explain_pip(output: str) -> str | None:
    known = sources.explain_pip(output)
    if known is None and "No matching distribution found" in output:
        return "there is no such release of llama-cpp-python, or none as source."
    return known
