"""Hand what a context with fused attention has read to one that shows its attention weights.

The two store values differently (rows of tokens, or transposed), and llama.cpp refuses the saved
state of the other kind. Here the state is turned from the one kind into the other. It is the
layout of the pinned llama.cpp (llama_kv_cache::state_write), and checked field by field.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backend import api
from ..errors import LampeError

State = npt.NDArray[np.uint8]

MAGIC = 0xAF143CD8  # of a sequence's state
LAMPE_MAGIC = 0x65706D6C  # added where LaMPE is on: keys have no positions
F16 = 1  # enum ggml_type
SEQUENCE = 0


def get_state(context: Any) -> State:
    """The saved state of sequence 0 of a llama_context_p; LampeError where it gives none."""
    module = api.llama_cpp()
    state = np.empty(module.llama_state_seq_get_size(context, SEQUENCE), dtype=np.uint8)
    if module.llama_state_seq_get_data(context, _pointer(state), state.size, SEQUENCE) == 0:
        raise LampeError(f"the state could not be saved: {api.last_error() or 'no reason'}")
    return state


def set_state(context: Any, state: State) -> None:
    """Load a state into sequence 0 of an empty context; LampeError where it refuses."""
    module = api.llama_cpp()
    if module.llama_state_seq_set_data(context, _pointer(state), state.size, SEQUENCE) == 0:
        raise LampeError(f"the state could not be loaded: {api.last_error() or 'no reason'}")


def transpose_values(state: State) -> int:
    """Turn a fused context's state into one for unfused attention, in place.

    Needs one unbroken sequence with a cache of 16-bit floats. Returns its number of tokens;
    LampeError where the layout is another.
    """
    reader = _Reader(state)
    reader.expect(MAGIC)
    reader.number()  # the sequence's id
    n_stream = reader.number()
    if n_stream == LAMPE_MAGIC:
        n_stream = reader.number()
    reader.require(n_stream == 1)
    n_tokens = reader.number()
    cells = reader.block(12 * n_tokens).view(np.uint32).reshape(n_tokens, 3)
    reader.require(bool((cells[:, 0] == np.arange(n_tokens)).all() and (cells[:, 1] == 1).all()))
    transposed = reader.block(4).view(np.uint32)
    reader.require(transposed[0] == 0)
    transposed[0] = 1
    n_layer = reader.number()
    for _ in range(n_layer):  # keys: the same in both
        reader.expect(F16)
        reader.block(n_tokens * reader.long())
    for _ in range(n_layer):
        reader.expect(F16)
        header = reader.block(8)  # u64 bytes per row; transposed: u32 bytes per element, u32 row
        row = int(header.view(np.uint64)[0])
        header.view(np.uint32)[:] = 2, row // 2
        values = reader.block(n_tokens * row).view(np.uint16)
        values[:] = values.reshape(n_tokens, row // 2).T.copy().reshape(-1)
    reader.require(reader.at == state.size)
    return n_tokens


class _Reader:
    """Goes through a state; `block` gives views, not copies."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.at = 0

    def block(self, size: int) -> State:
        self.require(self.at + size <= self.state.size)
        self.at += size
        return self.state[self.at - size : self.at]

    def number(self) -> int:
        return int(self.block(4).view(np.uint32)[0])

    def long(self) -> int:
        return int(self.block(8).view(np.uint64)[0])

    def expect(self, number: int) -> None:
        self.require(self.number() == number)

    def require(self, fits: bool) -> None:
        if not fits:
            raise LampeError(
                "the backend saves its state in an unknown layout; use the pinned backend "
                f"({api.SETUP_COMMAND})"
            )


def _pointer(state: State) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
