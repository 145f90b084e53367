"""What memory a model and its context take, and the longest context that fits what is free.

llama.cpp itself counts: its program makes the model and its context without their memory.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from ..backend import programs
from ..container.format import padded
from ..errors import LampeError
from ..shown import size
from .log import reason

MIB = 1 << 20
PAD = 256  # llama.cpp rounds a context up to a multiple of this
KEPT_FREE = 0.1  # the part of what is free that stays so: other programs want more at times
SECONDS = 120.0  # that counting may take; a large file on a slow disk needs some

# options of llama-server that change what memory is taken, each followed by a value
COUNTED = {
    "-ctk", "--cache-type-k", "-ctv", "--cache-type-v", "-ngl", "--gpu-layers", "--n-gpu-layers",
    "-b", "--batch-size", "-ub", "--ubatch-size", "-fa", "--flash-attn", "-dev", "--device",
    "-sm", "--split-mode", "-ts", "--tensor-split", "-mg", "--main-gpu", "--rpc",
}


@dataclass(frozen=True)
class Need:
    """Bytes for the model, its context and computing, by device; "Host" is the processor's."""

    model: Mapping[str, int]
    context: Mapping[str, int]
    compute: Mapping[str, int]

    def on(self, device: str) -> int:
        """All of it on one device."""
        parts = (self.model, self.context, self.compute)
        return sum(part.get(device, 0) for part in parts)

    @property
    def kv(self) -> int:
        """The cache of keys and values, on whichever devices it lies."""
        return sum(self.context.values())


@dataclass(frozen=True)
class Fitted:
    """A context of `n_ctx` tokens for each slot, what it needs, and what was free by device."""

    n_ctx: int
    need: Need
    free: Mapping[str, int | None]

    @property
    def left(self) -> int | None:
        """Bytes of the processor's memory that nothing is planned for yet."""
        host = self.free.get("Host")
        return None if host is None else max(0, int(host * (1 - KEPT_FREE)) - self.need.on("Host"))


def measure(model: Path, options: Sequence[str], n_ctx: int, n_slots: int) -> Need:
    """What llama.cpp would take for `n_ctx` tokens in each slot; LampeError where it refuses.

    options  for llama-server; those that change memory count
    """
    command = [str(programs.find_program(programs.MEASURE)), "--model", str(model),
               "--ctx-size", str(n_ctx * n_slots), "--parallel", str(n_slots),
               "--fit-print", "on", *counted(options)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace",
                              stdin=subprocess.DEVNULL, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise LampeError(f"{model} was not read within {SECONDS:.0f} s; is its disk there?"
                         ) from None
    rows = [line.rsplit(maxsplit=3) for line in done.stdout.splitlines()]
    rows = [row for row in rows if len(row) == 4 and all(part.isdigit() for part in row[1:])]
    if done.returncode or not rows:
        raise LampeError(reason((done.stderr + done.stdout).splitlines(), model))
    columns = [{row[0]: int(row[part]) * MIB for row in rows} for part in (1, 2, 3)]
    need = Need(*columns)
    # what is repacked for the processor is in none of the rows
    unseen = max(0, model.stat().st_size - sum(need.model.values()))
    host = need.model.get("Host", 0) + unseen
    return Need({**need.model, "Host": host}, need.context, need.compute)


def counted(options: Sequence[str]) -> list[str]:
    """Those of llama-server's options that change what memory is taken, and the overrides."""
    found: list[str] = []
    for option, value in zip_longest(options, options[1:], fillvalue=""):
        if option in COUNTED or option == "--override-kv":
            found += [option, value]
        elif option.partition("=")[0] in COUNTED:
            found.append(option)
    return found


def fit(
    model: Path, options: Sequence[str], limit: int, n_slots: int,
    free: Mapping[str, int | None],
) -> Fitted:
    """The longest context, at most `limit` tokens a slot, that what is free has room for.

    LampeError where not even 512 tokens fit.
    """
    whole = measure(model, options, limit, n_slots)
    n_ctx = limit
    least = min(limit, 2 * PAD)
    if short := _short(whole, free):
        small = measure(model, options, least, n_slots)
        if _short(small, free):
            raise LampeError(
                f"the model needs {size(small.on(short))} with the shortest context and "
                f"{size(free[short] or 0)} are free on {_name(short)}; close other programs, take "
                "a smaller quantisation of it, or fewer slots")
        n_ctx = min(_between(device, small, whole, least, limit, bytes_free)
                    for device, bytes_free in free.items() if bytes_free is not None)
        whole = measure(model, options, n_ctx, n_slots)
    return Fitted(n_ctx, whole, free)


def require_room(fitted: Fitted) -> None:
    """Raise LampeError where a context that was asked for is more than there is memory for."""
    for device, free in fitted.free.items():
        if free is not None and fitted.need.on(device) > free:
            raise LampeError(
                f"a context of {fitted.n_ctx:,} tokens takes {size(fitted.need.kv)}, "
                f"{size(fitted.need.on(device))} with the model, and {size(free)} are free on "
                f"{_name(device)}; give a smaller --ctx, fewer slots, or leave --ctx out")


def _short(need: Need, free: Mapping[str, int | None]) -> str:
    """The device that has not enough, "" where all have."""
    for device, bytes_free in free.items():
        if bytes_free is not None and need.on(device) > bytes_free * (1 - KEPT_FREE):
            return device
    return ""


def _between(
    device: str, small: Need, whole: Need, least: int, limit: int, bytes_free: int
) -> int:
    """The context that fills a device, memory growing evenly with it."""
    grown = whole.on(device) - small.on(device)
    if grown <= 0:
        return limit
    room = bytes_free * (1 - KEPT_FREE) - small.on(device)
    n_ctx = least + int((limit - least) * room / grown)
    return max(least, min(limit, padded(n_ctx - PAD + 1, PAD)))


def _name(device: str) -> str:
    return "this machine" if device == "Host" else device
