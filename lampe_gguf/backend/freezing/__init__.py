"""What PyInstaller has to know to put lampe-gguf and its backend into a frozen app.

It finds this folder by itself (the entry point pyinstaller40), wherever lampe-gguf is installed.
"""

from __future__ import annotations

from pathlib import Path


def hook_dirs() -> list[str]:
    """The folder that holds the hooks."""
    return [str(Path(__file__).parent)]
