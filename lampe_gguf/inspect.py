"""What a model's file says about LaMPE, and the mapping that follows from it by length."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from .errors import LampeError
from .method.config import LampeConfig
from .model.architectures import qualifies
from .model.choose import choose_config, read_file
from .model.description import ModelInfo
from .old_names import renamed
from .shown import MESSAGE_LIMIT, shown


@dataclasses.dataclass(frozen=True)
class Row:
    """The map of one input length; the regions are distances in tokens, both ends included.

    compression is length / mapping_length, 1 where the plan is plain RoPE. middle and tail are
    None where the region is empty.
    """

    length: int
    mapping_length: int
    compression: float
    local: tuple[int, int]
    middle: tuple[int, int] | None
    tail: tuple[int, int] | None


@dataclasses.dataclass(frozen=True)
class Inspection:
    """`config` is the file's where `converted`, else what convert would write, else None."""

    model: ModelInfo
    converted: bool
    config: LampeConfig | None
    reason: str | None  # why LaMPE cannot extend this model
    rows: list[Row]


def inspect_gguf(path: str | os.PathLike[str]) -> Inspection:
    """What a model's file says about LaMPE, and the map by input length (method: section 2).

    Reads the header alone, of converted models and of others: `config` is then what convert_gguf
    would write. Lengths and distances are in tokens. Raises LampeError where the file is damaged
    or its LaMPE metadata cannot be used; why LaMPE cannot extend a model is no error but `reason`.

    >>> from lampe_gguf import inspect_gguf
    >>> found = inspect_gguf("model.gguf")
    >>> found.model.architecture, found.converted, found.reason
    ('llama', False, None)
    >>> [(row.length, row.mapping_length) for row in found.rows]
    [(4096, 4096), (8192, 8192), (16384, 4096), (32768, 4096)]
    """
    file = read_file(path)
    model, config = file.info, file.own_config
    converted = config is not None
    reason = qualifies(model.architecture, model.values)
    if config is None and reason is None:
        try:
            config = choose_config(model)
        except LampeError as error:
            reason = str(error)
    rows = [mapping(config, length) for length in lengths(config)] if config else []
    return Inspection(model, converted, config, reason, rows)


def lengths(config: LampeConfig) -> list[int]:
    """Half a window, one window, and doublings up to the context length."""
    found = [max(1, config.window // 2)]
    while found[-1] * 2 < config.context_length:
        found.append(found[-1] * 2)
    return [*found, config.context_length]


def mapping(config: LampeConfig, length: int) -> Row:
    """The map of an input of `length` tokens (method: section 2)."""
    plan = config.plan(length)
    last = length - 1
    if plan.is_identity or plan.local_window >= last:
        return Row(length, length, 1.0, (0, last), None, None)
    tail = (max(plan.tail_start, plan.local_window + 1), last)
    first, end = plan.local_window + 1, min(tail[0] - 1, last)
    return Row(
        length,
        plan.mapping_length,
        length / plan.mapping_length,
        (0, plan.local_window),
        (first, end) if first <= end else None,
        tail if tail[0] <= last else None,
    )


def as_dict(found: Inspection) -> dict[str, Any]:
    """For JSON."""
    return {
        "architecture": found.model.architecture,
        "name": found.model.name,
        "window": found.model.window,
        "n_vocab": found.model.n_vocab,
        "n_tensors": found.model.n_tensors,
        "converted": found.converted,
        "qualifies": found.reason is None,
        "reason": found.reason,
        "config": dataclasses.asdict(found.config) if found.config else None,
        "mapping": [dataclasses.asdict(row) for row in found.rows],
    }


def as_text(found: Inspection) -> str:
    """For people."""
    model = found.model
    lines = [
        f"architecture  {shown(model.architecture)}",
        f"name          {shown(model.name) if model.name else '(none)'}",
        f"window        {model.window if model.window is not None else '(not given)'}",
    ]
    if found.reason is not None:
        reason = shown(found.reason, MESSAGE_LIMIT)
        lines.append(f"LaMPE         cannot extend this model: {reason}")
    elif not found.converted:
        lines.append("LaMPE         not converted yet; 'lampe-gguf convert' would write:")
    if found.config is not None:
        values = dataclasses.asdict(found.config)
        lines += [f"  {name:<21} {shown(value)}" for name, value in values.items()]
        lines += ["", _table(found.rows)]
    return "\n".join(lines)


def _table(rows: list[Row]) -> str:
    def span(ends: tuple[int, int] | None) -> str:
        return f"{ends[0]}-{ends[1]}" if ends else "-"

    heads = ("length", "mapping length", "compression", "local", "middle", "tail")
    cells = [
        (
            str(row.length),
            str(row.mapping_length),
            f"{row.compression:.2f}" if row.compression > 1 else "none",
            span(row.local),
            span(row.middle),
            span(row.tail),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in (heads, *cells)
    )


def __getattr__(name: str) -> Any:
    return renamed(__name__, name, {"inspect": "inspect_gguf"})
