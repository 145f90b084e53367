"""Take LaMPE metadata out of a GGUF model again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .container.meter import OnProgress
from .container.reader import GGUFFile
from .container.rewrite import resolve_target, rewrite
from .errors import LampeError
from .model.metadata import prefix
from .old_names import renamed


def strip_gguf(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Write `source` to `target` without its LaMPE keys; returns the paths written.

    force        replace an output that exists
    on_progress  called with (bytes written, bytes to write)

    Keys, their order and all tensors are those of the file that was converted, byte for byte.
    Raises LampeError where the input carries no LaMPE metadata, is damaged, or the output cannot
    be written, UsageError for an output that exists.

    >>> from lampe_gguf import convert_gguf, strip_gguf
    >>> converted = convert_gguf("model.gguf").outputs[0]
    >>> strip_gguf(converted, "again.gguf")[0].name
    'again.gguf'
    """
    with GGUFFile(source) as file:
        start = prefix(file.architecture)
        if not any(key.startswith(start) for key in file.pairs):
            raise LampeError(f"{file.path} carries no LaMPE metadata; there is nothing to strip")
        path = resolve_target(file.path, Path(target), file.path)
        return rewrite(file, path, start, force=force, on_progress=on_progress)


def __getattr__(name: str) -> Any:
    return renamed(__name__, name, {"strip": "strip_gguf"})
