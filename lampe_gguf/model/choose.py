"""Which configuration a model gets: that of its file, a preset's, or the safe defaults."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from ..container.reader import GGUFFile
from ..errors import LampeError, UsageError
from ..method.config import LampeConfig
from ..method.fields import MAX_PROVENANCE_BYTES
from . import metadata, presets
from .architectures import qualifies
from .description import ModelInfo, read_model


def require_qualified(model: ModelInfo) -> None:
    """Raise LampeError, with the reason, for a model that LaMPE cannot extend."""
    reason = qualifies(model.architecture, model.values)
    if reason is not None:
        raise LampeError(f"LaMPE cannot extend a {model.architecture} model: {reason}")


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


def file_config(path: str | os.PathLike[str]) -> tuple[LampeConfig | None, LampeConfig]:
    """The configuration in a model's file (or None), and the one to use.

    Raises LampeError where the file carries none and LaMPE cannot extend the model.
    """
    with GGUFFile(path) as file:
        model = read_model(file)
        found = metadata.read(file, model.architecture)
        if found is not None:
            return found, found
        require_qualified(model)
        return None, choose_config(model)
