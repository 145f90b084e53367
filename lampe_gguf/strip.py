"""Take LaMPE metadata out of a GGUF model again."""

from __future__ import annotations

import os
from pathlib import Path

from .container.reader import GGUFFile
from .container.rewrite import OnProgress, resolve_target, rewrite
from .errors import LampeError
from .model.metadata import prefix


def strip(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Write `source` to `target` without its LaMPE keys; returns the paths written.

    Keys, their order and all tensors are those of the file that was converted, byte for byte;
    `on_progress` is called with (bytes written, bytes to write).
    Raises LampeError where the input carries no LaMPE metadata, is damaged, or the output cannot
    be written, UsageError for an output that exists (without `force`).
    """
    with GGUFFile(source) as file:
        start = prefix(file.architecture)
        if not any(key.startswith(start) for key in file.pairs):
            raise LampeError(f"{file.path} carries no LaMPE metadata; there is nothing to strip")
        path = resolve_target(file.path, Path(target), file.path)
        return rewrite(file, path, start, force=force, on_progress=on_progress)
