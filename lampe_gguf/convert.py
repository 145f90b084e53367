"""Add LaMPE metadata to a GGUF model."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from .container.meter import OnProgress
from .container.reader import GGUFFile
from .container.rewrite import resolve_target, rewrite
from .container.split import other_shards
from .errors import UsageError
from .method.config import LampeConfig
from .model import metadata
from .model.again import converted_path
from .model.choose import choose_config, require_qualified
from .model.description import read_model
from .model.encoding import encode
from .old_names import renamed


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What convert_gguf did: `outputs` has one path, or one per part of a split model."""

    outputs: list[Path]
    architecture: str
    config: LampeConfig
    replaced: bool  # the input carried LaMPE metadata already


def convert_gguf(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    preset: str | None = None,
    config: LampeConfig | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
    **values: Any,
) -> Conversion:
    """Write `source` again with LaMPE metadata, to `target` or `NAME.lampe.gguf` beside it.

    preset       name of published or calibrated values, see `preset`; None: what suits the model
    config       a whole configuration instead
    values       single fields of LampeConfig in their place, such as local_window=1024 (tokens)
    force        replace an output that exists
    on_progress  called with (bytes written, bytes to write); both are the same once the disk has
                 the rest to do

    Every other key and all tensors are carried over byte for byte, in constant memory; stock
    llama.cpp reads the result as before. Neither terminal nor signals are touched. Raises
    LampeError where the model does not qualify, the input is damaged or the output cannot be
    written, UsageError for an output that exists, FieldError for values that make no sense; no
    file is left behind then. The values: method, sections 1 and 2.

    >>> from lampe_gguf import convert_gguf
    >>> done = convert_gguf("model.gguf", context_length=16384)
    >>> done.outputs[0].name, done.config.context_length
    ('model.lampe.gguf', 16384)
    """
    with GGUFFile(source) as file:
        other_shards(file)  # a later part knows nothing of the model: say so, and not that
        model = read_model(file)
        require_qualified(model)
        if config is None:
            config = choose_config(model, preset, values)
        elif preset is not None or values:
            raise UsageError("give either a whole configuration or single values, not both")
        added = encode(model.architecture, config)
        beside = converted_path(file.path)
        path = resolve_target(file.path, Path(target) if target else None, beside)
        start = metadata.prefix(model.architecture)
        outputs = rewrite(
            file, path, start, added, padding=metadata.PADDING, force=force, on_progress=on_progress
        )
    replaced = any(key.startswith(start) for key in file.pairs)
    return Conversion(outputs, model.architecture, config, replaced)


def __getattr__(name: str) -> Any:
    return renamed(__name__, name, {"convert": "convert_gguf"})
