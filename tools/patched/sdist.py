"""The pinned source distribution: fetch it, read it, unpack it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from .places import SDIST, SDIST_SHA256, UPSTREAM_VERSION, best_python, cache_dir
from .report import Failure, Status, run

# Upstream's own history and pages: a third of the archive, and no part of a build.
_SKIPPED = (".git/", "docs/", "vendor/llama.cpp/docs/")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Sdist:
    """A source distribution as a mapping from paths below its one root folder to contents."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: dict[str, bytes] = {}  # a pass over the archive takes a second

    @lru_cache(maxsize=1)  # noqa: B019  (one object per run)
    def _members(self) -> dict[str, tarfile.TarInfo]:
        with tarfile.open(self.path) as archive:
            return {
                name: member
                for member in archive
                if member.isfile() and (name := self._inner(member.name))
            }

    @staticmethod
    def _inner(name: str) -> str:
        inner = name.partition("/")[2]
        return "" if inner.startswith(_SKIPPED) else inner

    def names(self) -> set[str]:
        """Paths of all files that a build may read."""
        return set(self._members())

    def read(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Contents of those of the given paths that exist, in one pass over the archive."""
        wanted = set(paths) & self._members().keys()
        missing = [self._members()[path] for path in wanted - self._kept.keys()]
        if missing:
            with tarfile.open(self.path) as archive:
                for member in sorted(missing, key=lambda member: member.offset):
                    file = archive.extractfile(member)
                    assert file is not None
                    self._kept[self._inner(member.name)] = file.read()
        return {path: self._kept[path] for path in wanted}

    def unpack(self, target: Path) -> dict[str, str]:
        """Write every file below `target`; returns the SHA-256 of each by its path."""
        sums: dict[str, str] = {}
        members = self._members()
        with tarfile.open(self.path) as archive, Status("Unpacking the source") as status:
            status.total = len(members)
            for name, member in members.items():
                if name.startswith("/") or ".." in name.split("/"):
                    raise Failure(f"{self.path.name} holds a path outside its root: {name!r}.")
                file = archive.extractfile(member)
                assert file is not None
                data = file.read()
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                path.chmod(0o755 if member.mode & 0o100 else 0o644)
                os.utime(path, (member.mtime, member.mtime))
                sums[name] = hashlib.sha256(data).hexdigest()
                status.done += 1
        return sums


def explain_pip(output: str) -> str | None:
    """The usual reasons why pip fails, as a sentence."""
    if "DO NOT MATCH THE HASHES" in output:
        return f"the downloaded {SDIST} is not the pinned one (its SHA-256 differs); try again."
    if "No module named pip" in output:
        return "this Python has no pip; install it (on Debian: apt install python3-pip)."
    for sign in (
        "NewConnectionError",
        "ConnectionError",
        "Temporary failure in name resolution",
        "Network is unreachable",
        "ReadTimeoutError",
        "Could not fetch URL",
        "ProxyError",
    ):
        if sign in output:
            return "pip could not reach its package index; check the network and run this again."
    return None


def fetch() -> Sdist:
    """The pinned source distribution from the cache, downloaded with pip when it is not there.

    pip is given the hash, so that it looks at nothing inside the archive before that holds.
    """
    home = cache_dir() / "sdist"
    path = home / SDIST
    if path.exists():
        if sha256(path) == SDIST_SHA256:
            return Sdist(path)
        path.unlink()
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        pin = Path(scratch) / "pin.txt"
        pin.write_text(
            f"llama-cpp-python=={UPSTREAM_VERSION} --hash=sha256:{SDIST_SHA256}\n",
            encoding="utf-8",
        )
        command = ["-m", "pip", "download", "--no-deps", "--require-hashes", "--no-binary"]
        command += ["llama-cpp-python", "--dest", scratch, "--requirement", str(pin)]
        label = f"Fetching llama-cpp-python {UPSTREAM_VERSION}"
        run([best_python(), *command], label, explain=explain_pip)
        fetched = Path(scratch) / SDIST
        if not fetched.exists() or sha256(fetched) != SDIST_SHA256:
            raise Failure(f"pip brought no {SDIST} with the pinned SHA-256; try again.")
        shutil.move(fetched, path)
    return Sdist(path)
