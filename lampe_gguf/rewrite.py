"""Write a model again with other LaMPE keys: what convert and strip have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .atomic import NewFiles, check_target
from .copying import copy_range, reserve
from .gguf_file import GGUFFile
from .gguf_output import encode_padding, output_size, write_gguf
from .metadata import PADDING, prefix
from .progress import Progress
from .split import check_shards, other_shards, output_paths


def resolve_target(source: Path, target: Path | None, default: Path) -> Path:
    """The output path: `default` where none is given, in a directory if one is given."""
    if target is None:
        return default
    return target / default.name if target.is_dir() else target


def rewrite(
    file: GGUFFile, target: Path, added: Sequence[bytes] = (), *, force: bool = False
) -> list[Path]:
    """Write the model in `file` to `target` with `added` in place of the LaMPE keys it has.

    Everything else is carried over byte for byte. Of a split model, the first part is written and
    the others are linked, or copied where they cannot be. Returns the paths written, the first
    part's first. Raises LampeError (UsageError for an output that exists, without `force`);
    then nothing is left behind.
    """
    others = other_shards(file)
    targets = output_paths(file.path, target, 1 + len(others))
    for path in targets:
        if not _same_file(path, others):
            check_target(path, force)
    check_shards(others)
    start = prefix(file.architecture)
    kept = [pair for pair in file.pairs.values() if not pair.key.startswith(start)]
    added = list(added)
    if added and file.size > file.tensors_end:
        added.append(encode_padding(start + PADDING, file, kept, added))
    total = output_size(file, kept, added)
    with NewFiles(force) as files, Progress("copying", total) as progress:
        # the first part comes last: once it is there, all are
        for other, path in zip(others, targets[1:], strict=True):
            if _same_file(path, [other]) or files.link(other, path):
                continue
            progress.total += other.stat().st_size
            _copy_shard(files, other, path, progress)
        fd = files.create(targets[0], file.mode)
        write_gguf(fd, file, kept, added, progress.advance)
        progress.relabel("waiting for the disk")
        files.commit()
    return targets


def _copy_shard(files: NewFiles, source: Path, target: Path, progress: Progress) -> None:
    with GGUFFile(source) as shard:
        fd = files.create(target, shard.mode)
        reserve(fd, shard.size)
        copy_range(shard.fd, 0, fd, 0, shard.size, progress.advance)


def _same_file(path: Path, others: Sequence[Path]) -> bool:
    return path.exists() and any(os.path.samefile(path, other) for other in others)
