"""Which configuration a model gets: that of its file, a preset's, or the safe defaults."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
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


@dataclasses.dataclass(frozen=True, eq=False)
class ModelFile(os.PathLike[str]):
    """A path whose header was read: who is given one need not open the file to know the model.

    It stands wherever a path does, for as long as nobody writes to the file.
    """

    path: Path
    info: ModelInfo
    stated: LampeConfig | LampeError | None  # what the metadata say, or why they cannot be used

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    @property
    def own_config(self) -> LampeConfig | None:
        """The configuration in the file, None where it carries none; LampeError: unusable."""
        if isinstance(self.stated, LampeError):
            raise self.stated
        return self.stated

    @property
    def config(self) -> LampeConfig:
        """The file's own configuration, else what convert would write.

        Raises LampeError where the file carries none and LaMPE cannot extend the model.
        """
        own = self.own_config
        if own is not None:
            return own
        require_qualified(self.info)
        return choose_config(self.info)


def read_file(path: str | os.PathLike[str]) -> ModelFile:
    """Read a file's header; a ModelFile is given back as it is.

    Raises LampeError where the file is damaged or describes no model.
    """
    if isinstance(path, ModelFile):
        return path
    with GGUFFile(path) as file:
        info = read_model(file)
        try:
            stated: LampeConfig | LampeError | None = metadata.read(file, info.architecture)
        except LampeError as error:
            stated = error
    return ModelFile(file.path, info, stated)


def file_config(path: str | os.PathLike[str]) -> tuple[LampeConfig | None, LampeConfig]:
    """The configuration in a model's file (or None), and the one to use; raises as `config`."""
    file = read_file(path)
    return file.own_config, file.config
