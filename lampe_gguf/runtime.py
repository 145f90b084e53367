"""LampeLlama: llama_cpp.Llama that reads past the training window."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import backend, metadata
from .aside import run_aside
from .config import MAX_LENGTH, LampeConfig
from .convert import choose_config, require_qualified
from .cores import usable_cores
from .errors import LampeError
from .gguf_file import GGUFFile, padded
from .model import read_model
from .native_path import NativePath
from .positions import Plan

if TYPE_CHECKING:
    import numpy.typing as npt

backend.llama_cpp()  # a LampeError with the command to run, where it is missing
from jinja2 import TemplateError  # noqa: E402  (llama_cpp needs it)
from llama_cpp import Llama  # noqa: E402

OnProgress = Callable[[int, int], None]  # tokens read so far, tokens to read

READ_BATCH = 512  # tokens per call while a prompt is read: what progress and cancel() wait for
ABORTED = "llama_decode returned 2"


class Cancelled(LampeError):
    """The work was cancelled with `cancel()`; the context can be used as before."""


def _overrides(
    model_path: str, lampe: LampeConfig | Literal["auto"]
) -> dict[str, int | float | str]:
    with GGUFFile(model_path) as file:
        model = read_model(file)
        require_qualified(model)
        config = choose_config(model) if lampe == "auto" else lampe
    return metadata.as_overrides(model.architecture, config)


def _without(model_path: str, n_ctx: int) -> tuple[dict[str, int | float | str], int]:
    """Overrides and n_ctx to open a file with, to switch LaMPE off then.

    Plain RoPE has no limit of its own, and its own length is the window.
    """
    with GGUFFile(model_path) as file:
        model = read_model(file)
        config = metadata.read(file, model.architecture)
    if config is None:
        return {}, n_ctx
    n_ctx = n_ctx or config.window
    longest = min(max(config.context_length, padded(n_ctx, 256)), MAX_LENGTH)
    return {metadata.prefix(model.architecture) + "context_length": longest}, n_ctx


class LampeLlama(Llama):  # type: ignore[misc]
    """A model with LaMPE positions; everything that llama_cpp.Llama does works as there.

    model_path  a converted file, or any GGUF with `lampe`
    lampe       None: what the file's metadata say (a file without is plain RoPE)
                "auto": what convert would write for this file
                a LampeConfig: that, whatever the file says
                False: plain RoPE, whatever the file says
    progress    called with (tokens read, tokens to read) while a prompt is read
    n_ctx       0: the LaMPE context length, if the memory allows it; with lampe=False, the window

    One thread at a time may use an object, but `cancel()` may be called from any. Raises
    LampeError with the reason where the backend refuses the model, the values or the context.
    """

    n_tokens: int  # in the context, as llama_cpp.Llama counts them

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        *,
        lampe: LampeConfig | Literal["auto", False] | None = None,
        progress: OnProgress | None = None,
        n_ctx: int = 0,
        n_batch: int = READ_BATCH,
        flash_attn: bool = True,
        verbose: bool = False,
        kv_overrides: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._stack = contextlib.ExitStack()  # Llama closes it, even where it never came to be
        backend.require_patched()
        self.progress = progress
        self._cancel = ctypes.c_bool(False)
        self._busy = False
        self._announced = 0
        path = NativePath(os.fspath(model_path))
        if not os.path.exists(path):
            raise LampeError(f"there is no file {path}; give the path of a GGUF model")
        if not (lampe is None or lampe is False or lampe == "auto"
                or isinstance(lampe, LampeConfig)):
            raise LampeError(
                f"lampe is {lampe!r:.80}; give a LampeConfig, \"auto\", False, or nothing"
            )
        if n_ctx < 0:
            raise LampeError(f"n_ctx is {n_ctx}; give a number of tokens, or 0 for as many as "
                             "the model supports")
        if options.get("n_threads") is None:
            # llama-cpp-python would take half of the processors, even where each is a core
            options["n_threads"] = usable_cores()
        overrides = dict(kv_overrides or {})
        if lampe is False:
            given, n_ctx = _without(path, n_ctx)
            overrides = {**given, **overrides}
        elif lampe is not None:
            overrides = {**_overrides(path, lampe), **overrides}

        def load() -> None:
            # the reason of a failure is kept by thread
            try:
                super(LampeLlama, self).__init__(
                    path,
                    n_ctx=n_ctx,
                    n_batch=n_batch,
                    flash_attn=flash_attn,
                    verbose=verbose,
                    kv_overrides=overrides or None,
                    **options,
                )
            except ValueError as error:
                raise LampeError(_reason(str(error))) from None
            except TemplateError as error:
                raise LampeError(
                    f"the model's chat template cannot be read ({error}); get the file of another "
                    "maker"
                ) from None
            if lampe is False and backend.is_enabled(self.ctx):
                backend.set_enabled(self.ctx, False)

        # llama.cpp calls Python for each line of its log: in the main thread, Ctrl-C would be
        # raised there, printed and forgotten
        if threading.current_thread() is threading.main_thread():
            run_aside(load, lambda: None)
        else:
            load()
        backend.set_abort_flag(self.ctx, self._cancel)

    @property
    def lampe_config(self) -> LampeConfig | None:
        """The configuration in force, None for plain RoPE."""
        return backend.get_config(self.ctx)

    @property
    def path(self) -> str:
        """Which attention runs: "off" (plain RoPE), "portable" or "fused"."""
        return backend.get_path(self.ctx)

    @property
    def path_reason(self) -> str:
        """Why `path` is not "fused", as "Vulkan0 has no fused attention ..."; "" where it is."""
        return backend.get_path_reason(self.ctx)

    def plan(self) -> Plan | None:
        """The plan of the newest token, None where nothing was read or LaMPE is off."""
        return backend.get_sequence_plan(self.ctx)

    def plan_for(self, length: int) -> Plan | None:
        """The plan for an input of `length` tokens, None where LaMPE is off."""
        return backend.get_plan(self.ctx, length)

    def set_config(self, config: LampeConfig) -> None:
        """Use other values from the next token on; cached keys carry no positions."""
        backend.set_config(self.ctx, config)

    def cancel(self) -> None:
        """Stop the reading or generating that is under way; callable from any thread.

        It raises Cancelled there, within a second. Does nothing while nothing is under way.
        """
        if self._busy:
            self._cancel.value = True

    def eval(self, tokens: Sequence[int]) -> None:
        """Read tokens; raises Cancelled, or LampeError where the backend refuses them."""
        tokens = list(tokens)
        with self._under_way():
            self._announce(len(tokens))
            self._read(tokens)

    def eval_logits(
        self, tokens: Sequence[int]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Read tokens and give the logits of all of them, batch by batch.

        Yields (index in `tokens` of the batch's first token, logits [n, n_vocab]); the array is
        the backend's own and lasts until the next step. Raises as `eval` does.
        """
        tokens = list(tokens)
        with self._under_way():
            self._announce(len(tokens))
            for start in range(0, len(tokens), self.n_batch):
                batch = tokens[start : start + self.n_batch]
                self._read_batch(batch, logits_all=True)
                pointer = self._ctx.get_logits()
                yield start, np.ctypeslib.as_array(pointer, shape=(len(batch), self.n_vocab()))

    def generate(
        self, tokens: Sequence[int], *args: Any, **options: Any
    ) -> Generator[int, Any, None]:
        """As llama_cpp.Llama.generate; raises Cancelled after `cancel()`."""
        with self._under_way():
            self._cancel.value = False  # of a stream that nobody finished
            yield from super().generate(tokens, *args, **options)

    @contextlib.contextmanager
    def _under_way(self) -> Iterator[None]:
        """While the outermost of these lasts, there is something to cancel."""
        if self._busy:
            yield
            return
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            self._cancel.value = False

    def load_state(self, state: Any) -> None:
        """As llama_cpp.Llama.load_state; LampeError for a state of the other kind of keys."""
        try:
            super().load_state(state)
        except RuntimeError as error:
            raise LampeError(_reason(str(error))) from None

    def _announce(self, n_new: int) -> None:
        config = self.lampe_config
        if config is None or config.length_policy != "prompt":
            return
        if n_new > 1:
            self._announced = self.n_tokens + n_new
        elif self._announced <= self.n_tokens:
            return
        else:
            self._announced = 0  # of a longer prompt that is no longer there
        backend.set_prompt_length(self.ctx, self._announced)

    def _read(self, tokens: list[int]) -> None:
        total = len(tokens)
        for start in range(0, max(total, 1), self.n_batch):
            self._read_batch(tokens[start : start + self.n_batch])
            if total > 1 and self.progress is not None:
                self.progress(min(start + self.n_batch, total), total)

    def _read_batch(self, batch: list[int], logits_all: bool = False) -> None:
        try:
            if self._cancel.value:
                raise Cancelled("cancelled")
            if threading.current_thread() is threading.main_thread():
                self._compute_aside(batch, logits_all)
            else:
                self._compute(batch, logits_all)
        except BaseException:
            # here and not only where the outermost call ends: that may be a stream that nobody
            # finished, and its cancelling must not meet what comes after it
            self._cancel.value = False
            self._requires_eval = True
            raise

    def _compute(self, batch: list[int], logits_all: bool) -> None:
        try:
            if logits_all:
                self._decode_all(batch)
            else:
                super().eval(batch)
        except RuntimeError as error:
            if self._cancel.value and str(error).startswith(ABORTED):
                raise Cancelled("cancelled") from None
            raise LampeError(_reason(str(error))) from None

    def _decode_all(self, batch: list[int]) -> None:
        """Llama.eval, but with all logits: Llama's own way holds those of the whole context."""
        start = self.n_tokens
        self._ctx.kv_cache_seq_rm(-1, start, -1)
        self._batch.set_batch(batch=batch, n_past=start, logits_all=True)
        self._ctx.decode(self._batch)
        self.input_ids[start : start + len(batch)] = batch
        self.n_tokens = start + len(batch)

    def _compute_aside(self, batch: list[int], logits_all: bool) -> None:
        """_compute in a thread of its own, so that Ctrl-C need not wait for a batch to end."""

        def stop() -> None:
            self._cancel.value = True

        run_aside(lambda: self._compute(batch, logits_all), stop)


def _reason(message: str) -> str:
    reason = backend.last_error()
    if reason:
        return reason
    if message.startswith("llama_decode returned 1"):
        return "the context is full; open the model with a larger n_ctx"
    if message.startswith("Failed to create llama_context"):
        return f"{message}; is there memory for a context of that length? give a smaller n_ctx"
    return message
