"""What a reading depends on: two contexts of one key may take each other's states.

Cached keys have no positions (LaMPE on), but the values and the hidden states of deeper layers do
depend on the map that was in force when a token was read, so the map is part of it.

Not part of it: the context length, where the state fits (but for models whose RoPE it changes),
threads, the size of batches, and the devices that hold layers. They change how sums are rounded,
not what is computed, and the layout of a state is the same on all of them. The path of attention
changes the layout (portable attention has its values transposed), so it is part of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend import api
from ..container.split import SHARD, shard_path
from ..method.config import LampeConfig

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

HEAD = 1 << 23  # bytes at the beginning of a file: its metadata, with the vocabulary's begin
SAMPLES = 512  # places in a file, evenly spread, ...
SAMPLE = 4096  # ... of which so many bytes are looked at

# of llama_context_params: what changes the numbers in a state, or where they lie
PARAMS = (
    "type_k", "type_v", "flash_attn_type", "kv_unified", "n_seq_max",
    "rope_scaling_type", "rope_freq_base", "rope_freq_scale", "yarn_ext_factor",
    "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow", "yarn_orig_ctx",
)


def key_of(llm: LampeLlama) -> dict[str, Any] | None:
    """What the state of a model's context depends on, as JSON has it; None: keep none of it.

    None where the map depends on a prompt's length (the length policy "prompt"), where what was
    read was read under other values or came from elsewhere, where the context makes embeddings,
    and where the model's file has changed since it was opened.
    """
    config = llm.lampe_config
    if llm._is_mixed or (config is not None and config.length_policy == "prompt"):
        return None
    params = llm.context_params
    if params.embeddings:
        return None
    adapters = [Path(os.fsdecode(llm.lora_path))] if llm.lora_path else []
    files = [*parts(Path(os.fsdecode(llm.model_path))), *adapters]
    if not is_since(files, llm._since):
        return None
    return make_key(
        files, config, llm.path, {name: getattr(params, name) for name in PARAMS},
        overrides=llm.kv_overrides or {}, is_long=_is_long(llm),
        scale=float(llm.lora_scale) if adapters else 1.0,
    )


def make_key(
    files: Sequence[Path], config: LampeConfig | None, path: str, params: Mapping[str, Any], *,
    overrides: Mapping[str, Any], is_long: bool, scale: float = 1.0,
) -> dict[str, Any]:
    """A key of its parts.

    files      of the model, and of an adapter, which counts `scale`
    path       of attention; config None: LaMPE is off
    params     by the names of PARAMS
    overrides  of metadata; LaMPE's are in `config`
    OSError where a file cannot be read.
    """
    found = {
        "backend": [api.version(), api.abi_version()],
        "files": [fingerprint(each) for each in files],
        "scale": scale,
        "overrides": {name: repr(value) for name, value in overrides.items()
                      if ".rope.scaling.lampe." not in name},
        "lampe": None if config is None else config.effective(),
        "path": path,
        "params": dict(params),
        "long": is_long,
    }
    again: dict[str, Any] = json.loads(json.dumps(found))  # tuples are lists there
    return again


def _is_long(llm: LampeLlama) -> bool:
    """Whether the context is longer than what RoPE was scaled from: some have other factors then.

    llama.cpp decides so by the context's length, and not by the prompt's (Phi 3's longrope).
    """
    arch = llm.metadata.get("general.architecture", "")
    given = llm.metadata.get(f"{arch}.rope.scaling.original_context_length", "")
    return str(given).isdigit() and llm.n_ctx() > int(given)


def parts(path: Path) -> list[Path]:
    """The files of a model: itself, or all parts of a split one, by their names."""
    match = SHARD.match(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    return [shard_path(path, match["prefix"], number, count) for number in range(1, count + 1)]


def fingerprint(path: Path) -> str:
    """A file's identity without reading all of it: its size, its time, and samples.

    The samples tell files of one size and time from each other (a model and its fine-tune, both
    unpacked with the time of the archive); the time of its last change tells a file from what it
    was before a part was overwritten that no sample is of. A copy with another time is read anew
    once, which is the safe way to be wrong. OSError where it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(fd)
        hashed = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns} ".encode())
        hashed.update(os.pread(fd, HEAD, 0))
        last = max(0, status.st_size - SAMPLE)
        for number in range(SAMPLES):
            hashed.update(os.pread(fd, SAMPLE, last * number // (SAMPLES - 1)))
        return hashed.hexdigest()
    finally:
        os.close(fd)


def is_since(files: Sequence[Path], opened: float) -> bool:
    """Whether files are still those that were opened then: nobody wrote to one or took its name."""
    with contextlib.suppress(OSError):
        return all(path.stat().st_ctime < opened for path in files)
    return False
