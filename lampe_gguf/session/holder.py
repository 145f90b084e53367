"""The model of a session: opened, and opened anew where a question needs a longer context."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..container.format import padded
from ..conversation.session import PAD, longest_input, open_model
from ..errors import LampeError
from ..model.choose import ModelFile, read_file
from .found import Examined, Opened
from .pace import Pace
from .request import Request

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

DEFAULT_N_CTX = 16384
BATCH = 256  # tokens between two signs of life; half of them cost no more, SmolLM2 on a processor
ROOM = 2048  # tokens that a context is made longer than needed: for the questions that follow


class Holder:
    """Which model is open. Only the thread that computes opens, closes and uses it.

    n_ctx, threads, use_lampe, rpc_servers  as Session has them
    """

    def __init__(
        self, n_ctx: int | None, threads: int | None, use_lampe: bool,
        rpc_servers: Sequence[str] = (),
    ) -> None:
        self.opened: Opened | None = None
        self.pace = Pace()
        self.file: ModelFile | None = None
        self._n_ctx, self._threads, self._use_lampe = n_ctx, threads, use_lampe
        self._rpc_servers = rpc_servers
        self._llm: LampeLlama | None = None

    def open(self, request: Request[Any], path: str | os.PathLike[str]) -> Opened:
        """Open a model in the place of the one that is open, which stays where this is none."""
        file = read_file(path)
        longest = longest_input(file, self._use_lampe)[0]  # the reason where LaMPE cannot be had
        self.close()
        self.file = file
        wanted = self._n_ctx or DEFAULT_N_CTX
        return self._open(request, wanted if longest is None else min(wanted, longest))

    def model(self, request: Request[Any], n_needed: int = 0) -> LampeLlama:
        """The model, with a context of so many tokens at least. LampeError where none was opened.
        """
        if self.file is None:
            raise LampeError("no model is open; open one first")
        if self._llm is None or self._llm.n_ctx() < n_needed:
            now = self.opened.n_ctx if self.opened is not None else 0
            n_ctx = max(now, self._n_ctx or 0)
            if n_needed > n_ctx:
                n_ctx = padded(n_needed + ROOM, PAD)
            n_ctx = min(n_ctx or DEFAULT_N_CTX, self.limit or n_needed or DEFAULT_N_CTX)
            self._shut()
            self._open(request, n_ctx)
        assert self._llm is not None
        return self._llm

    @property
    def limit(self) -> int | None:
        """The longest input, tokens; None where no model was opened, or it does not say."""
        if self.file is None:
            return None
        longest, window = longest_input(self.file, self._use_lampe)
        return longest or window or None

    def close(self) -> None:
        """Free the model."""
        self._shut()
        self.opened, self.file, self.pace = None, None, Pace()

    def _shut(self) -> None:
        if self._llm is not None:
            self._llm.close()
            self._llm = None

    def _open(self, request: Request[Any], n_ctx: int) -> Opened:
        assert self.file is not None
        show = request.progress("loading", "%")
        show(0, 100)
        llm = open_model(
            self.file, n_ctx=n_ctx, use_lampe=self._use_lampe, threads=self._threads,
            n_batch=BATCH, on_load=lambda part: show(int(100 * part), 100),
            rpc_servers=self._rpc_servers,
        )
        try:
            with request.stopped_by(llm.cancel):
                if self.pace.first is None:
                    self.pace = Pace.measured(llm)
        except BaseException:
            llm.close()
            raise
        self._llm = llm
        known = dict(vars(Examined.of(self.file)))
        if not self._use_lampe:
            known |= {"config": None, "context_length": known["window"]}
        self.opened = Opened(**known, n_ctx=llm.n_ctx(), attention=llm.path)
        return self.opened
