"""Write a model again with other metadata: what convert and strip have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import LampeError
from . import paths
from .atomic import NewFiles, check_target
from .copying import copy_range, reserve
from .leftovers import remove_leftovers
from .meter import Meter, OnProgress
from .reader import GGUFFile
from .split import check_shards, other_shards, output_paths
from .writer import check_written, encode_padding, output_size, write_gguf


def resolve_target(source: Path, target: Path | None, default: Path) -> Path:
    """The output path: `default` where none is given, in a directory if one is given."""
    if target is None:
        return default
    return target / default.name if paths.is_dir(target) else target


def rewrite(
    file: GGUFFile,
    target: Path,
    start: str,
    added: Sequence[bytes] = (),
    *,
    padding: str = "",
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Write the model in `file` to `target`, `added` in place of the keys that begin with `start`.

    padding  the name, after `start`, of a key that may fill up a block of the file system

    Everything else is carried over byte for byte. Of a split model, the first part is written and
    the others are linked, or copied where they cannot be; what was written is read again before it
    gets its name. Returns the paths written, the first part's first. Raises LampeError (UsageError
    for an output that exists, without `force`); then nothing is left behind.
    """
    remove_leftovers(file.path.parent)  # this very model may be a set that is to be finished
    found = paths.status(file.path)
    if found is None or not os.path.samestat(found, os.fstat(file.fd)):
        raise LampeError(f"{file.path} changed while it was read; try again")
    others = other_shards(file)
    targets = output_paths(file.path, target, 1 + len(others))
    for path in targets:
        if not _same_file(path, others):
            check_target(path, force)
    check_shards(others)
    kept = [pair for pair in file.pairs.values() if not pair.key.startswith(start)]
    added = list(added)
    if padding and file.tensors:
        added.append(encode_padding(start + padding, file, kept, added))
    meter = Meter(output_size(file, kept, added), on_progress)
    with NewFiles(force) as files:
        # the first part comes last: once it is there, all are
        for other, path in zip(others, targets[1:], strict=True):
            if _same_file(path, [other]) or files.link(other, path):
                continue
            _copy_shard(files, other, path, meter)
        fd = files.create(targets[0], file.mode)
        write_gguf(fd, file, kept, added, meter.advance)
        check_written(fd, file, kept, added)
        meter.advance(meter.total - meter.done)  # the bytes that were not copied
        files.commit()
    return targets


def _copy_shard(files: NewFiles, source: Path, target: Path, meter: Meter) -> None:
    with GGUFFile(source) as shard:
        meter.total += shard.size
        fd = files.create(target, shard.mode)
        reserve(fd, shard.size)
        copy_range(shard.fd, 0, fd, 0, shard.size, meter.advance)
        check_written(fd, shard, list(shard.pairs.values()))


def _same_file(path: Path, others: Sequence[Path]) -> bool:
    found = paths.status(path)
    if found is None:
        return False
    present = filter(None, map(paths.status, others))
    return any(os.path.samestat(found, other) for other in present)
