"""The programs that lie beside the backend's library: llama-server, and what measures for it."""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path

from ..errors import LampeError, is_checkout
from . import api

SERVER = "llama-server"
MEASURE = "llama-fit-params"  # says what memory a model and its context take
PEER = "ggml-rpc-server"  # computes for another machine
BUILD_SERVER = "python3 tools/backend.py build"


def find_program(name: str) -> Path:
    """The path of a program of the installed build; LampeError, with what to do, where none is."""
    path = Path(api.library_path()).with_name(name + (".exe" if os.name == "nt" else ""))
    if path.is_file():
        return path
    api.require_patched()
    what = (f"run {BUILD_SERVER}, without --no-server and with no LAMPE_GGUF_SERVER in the "
            "environment" if is_checkout() else "install a wheel that was made with it")
    raise LampeError(
        f"the installed llama-cpp-python {api.version()} was built without {name}; {what}"
    )


def why_no_page() -> str:
    """Why llama-server has no page for browsers, and how it gets one; "" where it has one."""
    try:
        text = metadata.distribution("llama-cpp-python").read_text("lampe-build.json") or "{}"
        made = json.loads(text)
    except (metadata.PackageNotFoundError, ValueError):
        made = {}
    why = made.get("no_page", "the installed build does not say that it has one")
    then = f"then run {BUILD_SERVER}" if is_checkout() else "another wheel may have it"
    return f"{why}; {then}" if why else ""
