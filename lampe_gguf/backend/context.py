"""llama_cpp's LlamaContext, so that it can be stopped and cuts no more than it can."""

from __future__ import annotations

import threading
from typing import Any

from llama_cpp._internals import LlamaContext

from ..errors import LampeError
from . import api, opening
from .calls import CLOSED, Calls, Cancelled
from .worker import run_aside

ABORTED = "llama_decode returned 2"


class Refused(LampeError, RuntimeError):
    """What the backend did not compute, with its reason; llama_cpp.Llama's is a RuntimeError."""


class Context(LlamaContext):  # type: ignore[misc]
    """A LlamaContext that computes so that Ctrl-C and cancel() need not wait for a batch's end."""

    calls: Calls

    def decode(self, batch: Any) -> None:
        """As there; raises Cancelled, or Refused with the reason."""
        calls = self.calls
        calls.check()
        calls.wrote()
        try:
            if threading.current_thread() is threading.main_thread():
                run_aside(lambda: LlamaContext.decode(self, batch), calls.interrupt)
            else:
                LlamaContext.decode(self, batch)
        except RuntimeError as error:
            if calls.cancelled and str(error).startswith(ABORTED):
                raise Cancelled from None
            raise Refused(opening.reason(str(error))) from None
        finally:
            calls.settle()

    def kv_cache_seq_rm(self, seq_id: int, p0: int, p1: int) -> bool:
        """As there; false, and nothing is done, where what is left could not be gone on from."""
        if p1 < 0 and not self.can_cut(p0):
            return False
        return bool(super().kv_cache_seq_rm(seq_id, p0, p1))

    def can_cut(self, n_kept: int) -> bool:
        """Whether the first `n_kept` tokens are enough to go on from, without the others.

        Where a sliding window has left tokens behind that the token `n_kept` would see, they are
        not: upstream would remove the rest and compute with what there is.
        """
        module = api.llama_cpp()
        n_window = int(module.llama_model_n_swa(self.model.model))
        if n_kept <= 0 or n_window <= 0:
            return True  # a recurrent memory refuses by itself
        if n_kept > module.llama_memory_seq_pos_max(self.memory, 0):
            return True  # there is nothing to remove
        oldest = int(module.llama_memory_seq_pos_min(self.memory, 0))
        return oldest <= max(0, n_kept - n_window)


class Closed:
    """What is left of llama_cpp's objects when theirs of C are freed, for whoever holds them."""

    def __getattr__(self, name: str) -> Any:
        raise LampeError(CLOSED)
