"""A context's state in a file, as llama.cpp writes it for a sequence and its server reads it.

Such a file begins with the tokens; what follows is the backend's own. Written and read by the
backend itself, layer by layer: no copy of all of it is ever in memory.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..backend import api
from ..backend.worker import run_aside
from ..errors import LampeError

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..backend.llama import LampeLlama

MAGIC, VERSION = 0x67677371, 3  # LLAMA_STATE_SEQ_MAGIC, LLAMA_STATE_SEQ_VERSION
HEAD = np.dtype("<u4").itemsize * 3  # magic, version, number of tokens
SEQUENCE = 0  # the only one of a LampeLlama


class NoState(LampeError):
    """A state that was not written or not read, and why."""


def state_size(llm: LampeLlama) -> int:
    """Bytes that the file of what the context holds will have, or a few less."""
    with llm._calls.computing():
        size = api.llama_cpp().llama_state_seq_get_size(llm._ctx.ctx, SEQUENCE)
    return HEAD + 4 * llm.n_tokens + int(size)


def write_state(llm: LampeLlama, path: str | os.PathLike[str]) -> None:
    """Write what the context holds into a file, over what it held. Raises NoState."""
    tokens = np.ascontiguousarray(llm.input_ids[: llm.n_tokens], dtype=np.int32)
    pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))

    def write(name: bytes) -> int:
        return int(api.llama_cpp().llama_state_seq_save_file(
            llm._ctx.ctx, name, SEQUENCE, pointer, len(tokens)))

    with llm._calls.computing():
        written = _aside(lambda: write(os.fsencode(path)))
    # what is left in the C library's buffer at the end is lost without a word on a full disk
    on_disk = os.stat(path).st_size
    if not written or on_disk != written:
        raise NoState(f"the disk took only {on_disk:,} bytes of it")


def read_state(llm: LampeLlama, path: str | os.PathLike[str], tokens: Sequence[int]) -> None:
    """Have the context hold what a file says, in the place of what it holds.

    tokens  those in the file
    The file must be what write_state wrote: the backend does not expect other bytes. Raises
    NoState, with an empty context, where the backend refuses it.
    """
    n = len(tokens)
    found = np.zeros(max(1, n), dtype=np.int32)
    count = ctypes.c_size_t()
    module = api.llama_cpp()

    reasons: list[str] = []

    def read(name: bytes) -> int:
        done = int(module.llama_state_seq_load_file(
            llm._ctx.ctx, name, SEQUENCE, found.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            n, ctypes.byref(count)))
        reasons.append(api.last_error())  # of this thread
        return done

    with llm._calls.computing():
        llm.reset()
        done = _aside(lambda: read(os.fsencode(path)))
        last = module.llama_memory_seq_pos_max(llm._ctx.memory, SEQUENCE)
        if not done or count.value != n or last != n - 1 or found[:n].tolist() != list(tokens):
            llm.reset()
            raise NoState(reasons[-1] or "the backend did not take it")
        llm.input_ids[:n] = found[:n]
        llm.n_tokens = n
        llm._requires_eval = True  # it holds no logits


def tokens_in(fd: int, size: int) -> npt.NDArray[np.int32] | None:
    """The tokens of an open file of `size` bytes, None where it cannot be a state."""
    try:
        head = os.pread(fd, HEAD, 0).ljust(HEAD, b"\0")
        magic, version, count = np.frombuffer(head, "<u4").tolist()
        if (magic, version) != (MAGIC, VERSION) or HEAD + 4 * count > size:
            return None
        data = os.pread(fd, 4 * count, HEAD)
    except OSError:  # a bad sector
        return None
    return np.frombuffer(data, "<i4") if len(data) == 4 * count else None


def _aside(work: Callable[[], int]) -> int:
    """In the thread that computes: what llama.cpp logs is Python's, where Ctrl-C would be lost."""
    if threading.current_thread() is not threading.main_thread():
        return work()
    found: list[int] = []
    run_aside(lambda: found.append(work()), lambda: None)
    return found[0]


def stream_at(n_tokens: int, use_lampe: bool) -> int:
    """Where a file says how many streams the cache has that it is of; LaMPE leaves a mark before.

    A LampeLlama's has one. A server's has one for each slot: the number, then of each stream how
    many cells follow; those of all slots but the saved one are empty (0), and it does not matter
    which of them has the cells. So it is for models without sliding windows, whose cache is one.
    """
    return HEAD + 4 * n_tokens + (4 if use_lampe else 0)
