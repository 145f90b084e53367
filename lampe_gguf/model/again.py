"""What to type to convert a model for longer inputs, its other values as they are."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
from pathlib import Path

from ..container import paths
from ..container.split import SHARD
from ..errors import LampeError
from .choose import ModelFile, choose_config

OF_THEIR_OWN = ("window", "context_length", "provenance", "version")


def converted_path(path: Path) -> Path:
    """`NAME.lampe.gguf` beside a file; the parts of a split model keep their numbers.

    A file of such a name is its own target.
    """
    match = SHARD.match(path.name)
    stem = match["prefix"] if match else path.name.removesuffix(".gguf")
    tail = path.name[len(stem) :] if match else ".gguf"
    return path.with_name(f"{stem.removesuffix('.lampe')}.lampe{tail}")


def longer(file: ModelFile, context_length: int) -> str:
    """The command that converts a file for inputs of `context_length` tokens.

    A converted one is replaced where its name is that of one, and keeps the values that convert
    would not choose by itself. What else lies where a plain one's output would go is left alone.
    """
    path, target = file.path, converted_path(file.path)
    words = ["lampe-gguf", "convert", str(path)]
    if target != path and paths.exists(target) and not SHARD.match(path.name):
        target = target.with_name(
            f"{target.name.removesuffix('.lampe.gguf')}-{context_length}.lampe.gguf")
        words.append(str(target))
    if paths.exists(target):
        words.append("--force")
    words += ["--context-length", str(context_length), *_own_values(file)]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _own_values(file: ModelFile) -> list[str]:
    """Options for the values in a file that are not those that convert would choose."""
    try:
        own = file.own_config
        if own is None:
            return []
        given = {} if own.window == file.info.window else {"window": own.window}
        usual = choose_config(file.info, values=given)
    except LampeError:
        return []
    options = [f"--window={own.window}"] if given else []
    for field in dataclasses.fields(own):
        value = getattr(own, field.name)
        if field.name not in OF_THEIR_OWN and value != getattr(usual, field.name):
            options.append(f"--{field.name.replace('_', '-')}={value}")
    return options
