"""Add LaMPE metadata to a GGUF model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .container.reader import GGUFFile
from .container.rewrite import OnProgress, resolve_target, rewrite
from .container.split import SHARD, other_shards
from .errors import LampeError, UsageError
from .method.config import LampeConfig
from .method.fields import MAX_PROVENANCE_BYTES
from .model import metadata, presets
from .model.architectures import qualifies
from .model.description import ModelInfo, read_model


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What convert did: `outputs` has one path, or one per part of a split model."""

    outputs: list[Path]
    architecture: str
    config: LampeConfig
    replaced: bool  # the input carried LaMPE metadata already


def convert(
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

    The values are `config`'s, or those of choose_config with `preset` and `values`. Every other
    key and all tensors are carried over byte for byte, in constant memory; `on_progress` is called
    with (bytes written, bytes to write), and both are the same once the disk has the rest to do.
    Neither terminal nor signals are touched. Raises LampeError where
    the model does not qualify, the input is damaged or the output cannot be written, UsageError
    for an output that exists (without `force`), FieldError for values that make no sense; no file
    is left behind then.
    """
    with GGUFFile(source) as file:
        other_shards(file)  # a later part knows nothing of the model: say so, and not that
        model = read_model(file)
        require_qualified(model)
        if config is None:
            config = choose_config(model, preset, values)
        elif preset is not None or values:
            raise UsageError("give either a whole configuration or single values, not both")
        added = metadata.encode(model.architecture, config)
        path = resolve_target(file.path, Path(target) if target else None, default_target(file))
        outputs = rewrite(file, path, added, force=force, on_progress=on_progress)
    replaced = any(key.startswith(metadata.prefix(model.architecture)) for key in file.pairs)
    return Conversion(outputs, model.architecture, config, replaced)


def require_qualified(model: ModelInfo) -> None:
    """Raise LampeError, with the reason, for a model that LaMPE cannot extend."""
    reason = qualifies(model.architecture, model.values)
    if reason is not None:
        raise LampeError(f"LaMPE cannot extend a {model.architecture} model: {reason}")


def default_target(file: GGUFFile) -> Path:
    """`NAME.lampe.gguf` beside the input; the parts of a split model keep their numbers.

    A file of such a name is its own target.
    """
    match = SHARD.match(file.path.name)
    stem = match["prefix"] if match else file.path.name.removesuffix(".gguf")
    tail = file.path.name[len(stem) :] if match else ".gguf"
    return file.path.with_name(f"{stem.removesuffix('.lampe')}.lampe{tail}")


def choose_config(
    model: ModelInfo, preset: str | None = None, values: Mapping[str, Any] | None = None
) -> LampeConfig:
    """The configuration for a model: `preset`, or the one that suits it, with `values` put in.

    Raises UsageError for an unknown preset or one of another window, and where the file does not
    give its window and `values` do not either; FieldError for values out of range.
    """
    changed = {name: value for name, value in (values or {}).items() if value is not None}
    window = changed.get("window", model.window)
    if window is None:
        raise UsageError("the model's file does not give its training window; add --window N")
    if preset is None:
        config = presets.choose(model.architecture, window, model.name, model.n_vocab)
    else:
        config = presets.preset(preset)
        if config.window != window:
            raise UsageError(
                f"the preset {preset} is for a window of {config.window} tokens and the model has "
                f"{window}; leave the preset out, or add --window {config.window} if the file is "
                "wrong"
            )
    if window == model.window:
        changed.pop("window", None)
    if not changed:
        return config
    if "provenance" not in changed:
        by_hand = ", ".join(f"{name}={value}" for name, value in changed.items())
        text = f"{config.provenance}; set by hand: {by_hand}"
        changed["provenance"] = text.encode()[:MAX_PROVENANCE_BYTES].decode("utf-8", "ignore")
    return dataclasses.replace(config, **changed).validate()
