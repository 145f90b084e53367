"""A persistent source tree with patches/ laid onto it, whose untouched files keep their times.

Only files whose contents change are written, so ninja rebuilds what a patch changed and no
more. Edits made in the tree are noticed and never overwritten unasked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .places import SDIST_SHA256, UPSTREAM_VERSION, cache_dir
from .report import Failure, Status
from .sdist import Sdist

VERSION_FILE = "llama_cpp/__init__.py"
# Where a new source file can be meant for the overlay, and what it may end in.
_NEW_PLACES = ("llama_cpp/", "vendor/llama.cpp/")
_NEW_ENDINGS = (".c", ".cc", ".cpp", ".h", ".hpp", ".cu", ".cuh", ".m", ".metal", ".comp", ".py")
_SKIPPED_FOLDERS = {".git", "__pycache__", ".cache", "docs", "lib"}


def with_version(source: bytes, version: str) -> bytes:
    """llama_cpp/__init__.py with its __version__ replaced."""
    stock = f'__version__ = "{UPSTREAM_VERSION}"'.encode()
    if source.count(stock) != 1:
        raise Failure(f"{VERSION_FILE} does not say {stock.decode()} once.")
    return source.replace(stock, f'__version__ = "{version}"'.encode())


def without_version(source: bytes) -> bytes:
    """llama_cpp/__init__.py with the __version__ that upstream gave it."""
    ours = rf'__version__ = "{re.escape(UPSTREAM_VERSION)}[^"]*"'.encode()
    return re.sub(ours, f'__version__ = "{UPSTREAM_VERSION}"'.encode(), source)


def source_files(root: Path) -> Iterator[str]:
    """Paths below `root` of all files but those of version control, caches and builds."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name for name in folders if name not in _SKIPPED_FOLDERS and name[:5] != "build"
        )
        inner = Path(folder).relative_to(root).as_posix()
        prefix = "" if inner == "." else inner + "/"
        yield from (prefix + name for name in sorted(files))


def may_be_new_source(path: str) -> bool:
    """Whether a file that upstream does not have looks like a source file of ours."""
    return path.startswith(_NEW_PLACES) and path.endswith(_NEW_ENDINGS)


def write_if_changed(path: Path, data: bytes) -> bool:
    """Replace a file in one step where its contents differ; returns whether it did."""
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    beside.write_bytes(data)
    os.replace(beside, path)
    return True


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + more


@dataclass
class Tree:
    """A source tree in the cache: `src` to edit, `build` for objects, `state.json` for what
    was put there: SHA-256, size and time of every file, and which of them were laid."""

    root: Path
    files: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    laid: set[str] = field(default_factory=set)

    @property
    def src(self) -> Path:
        return self.root / "src"

    @property
    def build(self) -> Path:
        return self.root / "build"

    def open(self, sdist: Sdist) -> None:
        """Read the tree's state, unpacking the source first where there is none."""
        state = self.root / "state.json"
        if state.exists() and self.src.is_dir():
            kept = json.loads(state.read_text(encoding="utf-8"))
            if kept["sdist"] == SDIST_SHA256:
                self.files = {path: tuple(value) for path, value in kept["files"].items()}
                self.laid = set(kept["laid"])
                return
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        scratch = self.root / "unpacking"
        sums = sdist.unpack(scratch)
        os.replace(scratch, self.src)
        for path, digest in sums.items():
            self._note(path, digest)
        self._save()

    def edits(self) -> list[str]:
        """Files that someone changed, added or removed since they were laid."""
        changed = [path for path in self.files if not self._as_laid(path)]
        new = [
            path
            for path in source_files(self.src)
            if path not in self.files and may_be_new_source(path)
        ]
        return sorted(changed + new)

    def lay(
        self,
        sdist: Sdist,
        wanted: dict[str, bytes],
        *,
        discard: bool = False,
        keep: bool = False,
    ) -> int:
        """Make the tree pristine but for the wanted files; returns how many were written.

        Edits that `wanted` does not hold raise Failure, unless `discard` drops them or `keep`
        lets them stay while everything else is laid. They stay only where `wanted` has not
        moved on from what the editing began with; else that raises Failure.
        """
        found = [
            path
            for path in self.edits()
            if path not in wanted or wanted[path] != self._contents(path)
        ]
        if found and not discard and not keep:
            raise Failure(
                f"{self.src} has edits that patches/ lacks ({_some(found)}): "
                "keep them with 'backend.py refresh' or drop them with --discard."
            )
        if keep:
            clashes = [path for path in found if self._moved_on(path, wanted.get(path))]
            if clashes:
                raise Failure(
                    f"both patches/ and {self.src} have changed ({_some(clashes)}): merge by "
                    "hand, or drop the tree's side with 'backend.py build --discard'."
                )
            wanted = {path: data for path, data in wanted.items() if path not in found}
        dropped = set(found) if discard else set()
        kept = set(found) - dropped
        upstream = sdist.names()
        stale = (self.laid | dropped) - wanted.keys() - kept
        restored = sdist.read(stale & upstream)
        written = 0
        come_or_gone = (stale - upstream) | {
            path for path in wanted if not (self.src / path).exists()
        }
        self.laid |= wanted.keys()
        try:
            for path in sorted(stale - upstream):
                (self.src / path).unlink(missing_ok=True)
                self.files.pop(path, None)
                written += 1
            for path, data in sorted({**restored, **wanted}.items()):
                written += write_if_changed(self.src / path, data)
                self._note(path, hashlib.sha256(data).hexdigest())
            self.laid = set(wanted) | (self.laid & kept)
            for path in come_or_gone:
                self._list_again(path)
        finally:
            self._save()
        return written

    def _list_again(self, path: str) -> None:
        """Have CMake look for source files anew beside `path`: it lists some folders only once."""
        for folder in Path(path).parents:
            listing = self.src / folder / "CMakeLists.txt"
            if listing.is_file():
                listing.touch()
                return

    def _moved_on(self, path: str, wanted: bytes | None) -> bool:
        """Whether patches/ says something else of a file than when it was last laid."""
        if wanted is None:
            return path in self.laid
        return path not in self.files or self.files[path][0] != hashlib.sha256(wanted).hexdigest()

    def _contents(self, path: str) -> bytes | None:
        file = self.src / path
        return file.read_bytes() if file.is_file() else None

    def _note(self, path: str, digest: str) -> None:
        stat = (self.src / path).stat()
        self.files[path] = (digest, stat.st_size, stat.st_mtime_ns)

    def _as_laid(self, path: str) -> bool:
        digest, size, time = self.files[path]
        try:
            stat = (self.src / path).stat()
        except FileNotFoundError:
            return False
        if (stat.st_size, stat.st_mtime_ns) == (size, time):
            return True
        data = self._contents(path)
        return data is not None and hashlib.sha256(data).hexdigest() == digest

    def _save(self) -> None:
        state = {"sdist": SDIST_SHA256, "laid": sorted(self.laid), "files": self.files}
        write_if_changed(self.root / "state.json", json.dumps(state).encode())


@contextmanager
def locked_tree(variant: str) -> Iterator[Tree]:
    """The tree of one variant ('lampe-cpu', 'stock-cpu', ...), held against other builds."""
    trees = cache_dir() / "trees"
    trees.mkdir(parents=True, exist_ok=True)
    with (trees / f"{variant}.lock").open("w", encoding="utf-8") as lock:
        try:
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with Status(f"Waiting for another build in {trees / variant}"):
                    fcntl.flock(lock, fcntl.LOCK_EX)
        except ImportError:
            pass  # no such locks on Windows
        yield Tree(trees / variant)
