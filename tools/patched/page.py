"""The page of llama-server, made from its source by npm and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .places import cache_dir
from .report import Failure, run
from .sdist import Sdist
from .tree import Tree

SOURCE = "vendor/llama.cpp/tools/ui/"
_UNUSED = (f"{SOURCE}tests/", f"{SOURCE}.storybook/")
LEAST_NODE = (20, 19)  # what the packages of its lock file ask for; npm refuses older ones
_AGAIN = 3600.0  # seconds after which a page that could not be made is tried again
_KEPT = 2


@dataclass(frozen=True)
class Page:
    """The folder of a page that is ready to be embedded, or None and why there is none."""

    folder: Path | None
    why_not: str = ""

    @property
    def key(self) -> str:
        """What tells this page from another; '' for none."""
        return self.folder.name if self.folder else ""


def find_npm() -> tuple[str | None, str]:
    """The program npm, or None and what is missing."""
    npm, node = shutil.which("npm"), shutil.which("node")
    wanted = f"Node {'.'.join(map(str, LEAST_NODE))} or newer"
    if npm is None or node is None:
        return None, f"there is no {'npm' if node else 'Node'} (the page needs {wanted} with npm)"
    asked = subprocess.run([node, "--version"], capture_output=True, text=True)
    found = re.match(r"v(\d+)\.(\d+)", asked.stdout)
    if not found or (int(found[1]), int(found[2])) < LEAST_NODE:
        return None, f"Node is {asked.stdout.strip() or 'broken'} (the page needs {wanted})"
    return npm, ""


def make_page(source: Sdist) -> Page:
    """The page of the pinned source, from the cache where it was made before.

    A page is worth no failed build: what went wrong comes back with it.
    """
    files = source.read(name for name in source.names()
                        if name.startswith(SOURCE) and not name.startswith(_UNUSED))
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    pages = cache_dir() / "pages"
    folder = pages / digest.hexdigest()[:16]
    if (folder / "index.html").exists():
        return Page(folder)
    npm, missing = find_npm()
    if npm is None:
        return Page(None, missing)
    failed = folder.with_suffix(".failed")
    if failed.exists() and time.time() - failed.stat().st_mtime < _AGAIN:
        return Page(None, failed.read_text(encoding="utf-8"))
    try:
        _build(npm, files, folder)
    except Failure as failure:
        pages.mkdir(parents=True, exist_ok=True)
        failed.write_text(str(failure), encoding="utf-8")
        return Page(None, str(failure))
    failed.unlink(missing_ok=True)
    for old in sorted((path for path in pages.iterdir() if path.is_dir()),
                      key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return Page(folder)


def _build(npm: str, files: dict[str, bytes], folder: Path) -> None:
    work, made = folder.with_suffix(".work"), folder.with_suffix(".partial")
    for old in (work, made):
        shutil.rmtree(old, ignore_errors=True)
    for name, data in files.items():
        path = work / name.removeprefix(SOURCE)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    env = {**os.environ, "LLAMA_UI_OUT_DIR": str(made), "LLAMA_BUILD_NUMBER": "0",
           "LLAMA_UI_VERSION": "sdist", "CI": "1"}
    try:
        # the versions and hashes of the lock file, whatever is newer
        run([npm, "ci", "--no-audit", "--no-fund"], "Fetching what the page is made of",
            env=env, cwd=work, explain=_explain)
        run([npm, "run", "build"], "Making the page", env=env, cwd=work)
        if not (made / "index.html").exists():
            raise Failure("npm made no page; try again.")
        os.replace(made, folder)
    finally:
        for old in (work, made):
            shutil.rmtree(old, ignore_errors=True)


def _explain(output: str) -> str | None:
    if "EBADENGINE" in output:
        return "npm says that Node is too old for the page; install a newer one."
    for sign in ("ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET", "E403",
                 "network"):
        if sign in output:
            return "npm could not reach its registry; check the network and run this again."
    return None


def lay(page: Page, tree: Tree) -> None:
    """Have the tree's build embed the page, or none."""
    dist = tree.src / SOURCE / "dist"  # where upstream looks for a page first
    shutil.rmtree(dist, ignore_errors=True)
    if page.folder:
        shutil.copytree(page.folder, dist)
