"""What is pinned, and where things are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PATCHES = CHECKOUT / "patches"
VENV = CHECKOUT / ".venv"

UPSTREAM = "llama_cpp_python"
UPSTREAM_VERSION = "0.3.36"
SDIST = f"{UPSTREAM}-{UPSTREAM_VERSION}.tar.gz"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"


def cache_dir() -> Path:
    """The folder outside the checkout that holds sources, build trees and wheels.

    $LAMPE_GGUF_CACHE names it; without, it is ~/.cache/lampe-gguf.
    """
    given = os.environ.get("LAMPE_GGUF_CACHE")
    return Path(given).expanduser().resolve() if given else Path.home() / ".cache" / "lampe-gguf"


def venv_bin(venv: Path = VENV) -> Path:
    """The folder of a virtual environment that holds its programs."""
    return venv / ("Scripts" if os.name == "nt" else "bin")


def venv_python(venv: Path = VENV) -> Path:
    """The interpreter of a virtual environment (which need not exist yet)."""
    return venv_bin(venv) / ("python.exe" if os.name == "nt" else "python")


def best_python() -> Path:
    """The checkout's own interpreter where it exists, else the one that runs this."""
    return venv_python() if venv_python().exists() else Path(sys.executable)


def patched_version(patches: Path = PATCHES) -> str:
    """Version of the patched build, 0.3.36+lampe016, with the number read from patches/VERSION.

    "==0.3.36" is content with it, and it comes after 0.3.36, so that pip prefers it. No dot after
    the third number: LlamaIndex takes a version apart at its dots, into three. Three digits, as
    words of a version are compared letter by letter.
    """
    number = int((patches / "VERSION").read_text(encoding="utf-8"))
    return f"{UPSTREAM_VERSION}+lampe{number:03d}"


STOCK_VERSION = f"{UPSTREAM_VERSION}+stock"
