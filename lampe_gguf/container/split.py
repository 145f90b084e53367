"""Split GGUFs: a model in several files, `name-00001-of-00003.gguf` and so on."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import LampeError, UsageError
from .paths import exists
from .reader import GGUFFile

SHARD = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.DOTALL)


def shard_path(path: Path, prefix: str, number: int, count: int) -> Path:
    """The name of one shard (numbered from 1) beside `path`."""
    return path.with_name(f"{prefix}-{number:05d}-of-{count:05d}.gguf")


def other_shards(file: GGUFFile) -> list[Path]:
    """Paths of the shards after the first, [] for a file that is not split.

    Raises UsageError for a shard that is not the first, LampeError where a name does not follow
    the convention (llama.cpp would not find the others) or a shard is missing.
    """
    count = file.value("split.count")
    if not isinstance(count, int) or count <= 1:
        return []
    match = SHARD.match(file.path.name)
    if match is None or int(match["count"]) != count:
        raise LampeError(
            f"{file.path} is one of {count} parts of a model and must be called "
            f"NAME-00001-of-{count:05d}.gguf; give the parts back their names"
        )
    prefix = match["prefix"]
    number = file.value("split.no")
    if number != 0 or int(match["number"]) != 1:
        first = shard_path(file.path, prefix, 1, count)
        raise UsageError(f"{file.path} is not the first part of its model; give {first}")
    paths = [shard_path(file.path, prefix, number, count) for number in range(2, count + 1)]
    for path in paths:
        if not exists(path):
            raise LampeError(f"{path} is missing, one of the {count} parts; fetch it")
    return paths


def check_shards(paths: list[Path]) -> None:
    """Raise LampeError unless each path is a whole GGUF file with the number its name says."""
    for number, path in enumerate(paths, start=1):
        with GGUFFile(path) as file:
            if file.value("split.no") != number or file.value("split.count") != len(paths) + 1:
                raise LampeError(
                    f"{path} is not part {number + 1} of {len(paths) + 1} of this model; "
                    "fetch the parts again"
                )


def output_paths(source: Path, target: Path, count: int) -> list[Path]:
    """Where the shards of an output go; `target` names the first of them, or their common part."""
    if count == 1:
        return [target]
    match = SHARD.match(target.name)
    if match is None:
        prefix = target.name.removesuffix(".gguf")
    elif int(match["count"]) != count or int(match["number"]) != 1:
        raise UsageError(
            f"{source} has {count} parts, which {target.name} does not fit; "
            f"call the output {match['prefix']}.gguf"
        )
    else:
        prefix = match["prefix"]
    return [shard_path(target, prefix, number, count) for number in range(1, count + 1)]
