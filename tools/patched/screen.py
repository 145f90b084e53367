"""What the tests of windows and of the server's page need of the system: Debian's packages, which
are installed where that is allowed.

They are kept in the cache, so that a machine that is made anew needs no network for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import sys
from pathlib import Path

from .places import cache_dir
from .report import Failure, run

PROGRAMS = ("Xvfb", "xdotool")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")  # any of them
# what Qt's libraries and its plugin for X11 are linked to; X11's server brings the rest
LIBRARIES = ("libEGL.so.1", "libGL.so.1", "libfontconfig.so.1", "libdbus-1.so.3",
             "libxkbcommon-x11.so.0", "libxcb-cursor.so.0", "libxcb-icccm.so.4",
             "libxcb-keysyms.so.1", "libxcb-xkb.so.1")
PACKAGES = ("xvfb", "xdotool", "fonts-dejavu-core", "libegl1", "libgl1", "libfontconfig1",
            "libdbus-1-3", "libxkbcommon-x11-0", "libxcb-cursor0", "libxcb-icccm4",
            "libxcb-image0", "libxcb-keysyms1", "libxcb-randr0", "libxcb-render-util0",
            "libxcb-shape0", "libxcb-xinerama0", "libxcb-xkb1")
WANTED = (*PACKAGES, "chromium")


def missing() -> list[str]:
    """Programs and libraries that are not there."""
    browser = [] if any(shutil.which(name) for name in BROWSERS) else [BROWSERS[0]]
    return [*(name for name in PROGRAMS if shutil.which(name) is None), *browser,
            *missing_libraries()]


def missing_libraries() -> list[str]:
    """Libraries that are not there."""
    return [name for name in LIBRARIES if not _loads(name)]


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def prepare() -> str:
    """Install what is missing; gives a sentence where something stays so, "" where nothing does."""
    if not sys.platform.startswith("linux") or not missing():
        return ""
    words = f"apt-get install {' '.join(WANTED)}"
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return (f"windows or the page are not tested: {', '.join(missing())} missing "
                f"(Debian, Ubuntu: {words}).")
    folder = cache_dir() / "debian" / _key()
    archives = sorted(folder.glob("*.deb")) if (folder / "whole").exists() else []
    if archives:
        with contextlib.suppress(Failure):  # of a system that has changed
            run(["dpkg", "--install", *archives], "Installing a screen and a browser, as kept")
    if missing():
        try:
            _fetch(folder)
        except Failure as failure:
            return f"windows or the page are not tested: {failure}"
    left = missing()
    return f"windows or the page are not tested: {', '.join(left)} still missing." if left else ""


def _fetch(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "partial").mkdir(parents=True)
    apt = ["apt-get", "-o", f"Dir::Cache::archives={folder}", "-o", "APT::Sandbox::User="]
    install = [*apt, "install", "--yes", "--no-install-recommends", "--fix-broken"]
    run([*apt, "update"], "Reading Debian's lists")
    run([*install, "--download-only", *WANTED], "Fetching a screen and a browser")
    run([*install, "--no-download", *WANTED], "Installing a screen and a browser",
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    (folder / "whole").touch()


def _key() -> str:
    """Of the system and of what is wanted: packages of another release do not fit."""
    release = Path("/etc/os-release")
    said = release.read_text(encoding="utf-8") if release.exists() else ""
    return hashlib.sha256("\n".join((said, *WANTED)).encode()).hexdigest()[:16]
