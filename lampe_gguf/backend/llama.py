"""LampeLlama: llama_cpp.Llama that reads past the training window."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import LampeError
from ..method.config import LampeConfig
from ..method.positions import Plan
from ..model import metadata
from ..model.choose import ModelFile, choose_config, read_file, require_qualified
from . import api, opening, peers
from .calls import Calls, guarded
from .calls import Cancelled as Cancelled
from .cores import usable_cores
from .quiet import quiet
from .worker import run_aside

if TYPE_CHECKING:
    import numpy.typing as npt

api.llama_cpp()  # a LampeError with the command to run, where it is missing
from llama_cpp import Llama  # noqa: E402

from .context import Closed, Context, Refused  # noqa: E402
from .tokens import Model, require_tokens  # noqa: E402

OnProgress = Callable[[int, int], None]  # tokens read so far, tokens to read

VOCAB_ONLY_N_CTX = 512  # llama_cpp.Llama's own: without weights, a file has no window
READ_BATCH = 512  # tokens per call while a prompt is read: what progress and cancel() wait for

# what may be called while another thread computes: it looks at no more than the vocabulary and the
# parameters; a property is of that kind
LOOKS = frozenset({
    "tokenize", "detokenize", "tokenizer", "n_ctx", "n_embd", "n_vocab", "token_bos", "token_eos",
    "token_nl", "pooling_type", "plan_for",
})
FREE = frozenset({"close", "cancel"})


def _overrides(
    model_path: str | os.PathLike[str], lampe: LampeConfig | Literal["auto"]
) -> dict[str, int | float | str]:
    model = read_file(model_path).info
    require_qualified(model)
    config = choose_config(model) if lampe == "auto" else lampe
    return metadata.as_overrides(model.architecture, config)


def _without(
    model_path: str | os.PathLike[str], n_ctx: int
) -> tuple[dict[str, int | float | str], int]:
    """Overrides and n_ctx to open a file with as upstream would; its own length is the window."""
    file = read_file(model_path)
    config = file.own_config
    if config is None:
        return {}, n_ctx
    return {metadata.prefix(file.info.architecture) + "version": 0}, n_ctx or config.window


@guarded(LOOKS, FREE)
class LampeLlama(Llama):  # type: ignore[misc]
    """A model with LaMPE positions; everything that llama_cpp.Llama does works as there.

    model_path  a converted file, or any GGUF with `lampe`
    lampe       None: what the file's metadata say (a file without is plain RoPE)
                "auto": what convert would write for this file
                a LampeConfig: that, whatever the file says
                False: plain RoPE, whatever the file says
    progress    called with (tokens read, tokens to read) while a prompt is read
    on_load     called with the part of the model that is loaded, 0 to 1, in the thread that loads;
                what it raises stops the loading
    n_ctx       0: the LaMPE context length, if the memory allows it; with lampe=False, the window
    attention   None: "fused" where every device that holds a layer has it, "portable" elsewhere;
                one of the two by name, LampeError where it cannot be. Where LaMPE is off, it means
                nothing and `flash_attn` decides; where LaMPE is on, it is the other way round
    rpc_servers  HOST:PORT of machines that run this build's ggml-rpc-server: the layers are split
                over them, all but what n_gpu_layers leaves here

    One thread at a time computes with an object; another is refused, but may look at it, and call
    `cancel()` and `close()`. Raises LampeError with the reason where the backend refuses the
    model, the values or the context, and everywhere once it is closed. `with` closes it. A pickle
    opens the file again, with the same values; what is called back stays behind.

    >>> from lampe_gguf import LampeLlama
    >>> with LampeLlama("model.gguf", lampe="auto", n_ctx=512) as llm:
    ...     said = llm.create_completion("The sea was", max_tokens=4)
    ...     print(llm.n_ctx(), llm.plan_for(16384).mapping_length)
    512 4096
    """

    n_tokens: int  # in the context, as llama_cpp.Llama counts them
    input_ids: npt.NDArray[np.intc]  # [n_ctx]
    model_params = opening.ModelParams()

    def __init__(
        self,
        model_path: str | bytes | os.PathLike[str],
        *,
        lampe: LampeConfig | Literal["auto", False] | None = None,
        progress: OnProgress | None = None,
        on_load: opening.OnLoad | None = None,
        n_ctx: int = 0,
        n_batch: int = READ_BATCH,
        flash_attn: bool = True,
        attention: Literal["fused", "portable"] | None = None,
        verbose: bool = False,
        kv_overrides: dict[str, Any] | None = None,
        rpc_servers: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self._stack = contextlib.ExitStack()  # close() needs both, even where the rest never came
        self._calls = Calls()
        api.require_patched()
        self.progress = progress
        self._announced = 0
        self._is_mixed = False  # what the context holds was not all read as it would be now
        self._since = time.time()  # what becomes of the file later is another model
        path = opening.native(model_path)
        file = model_path if isinstance(model_path, ModelFile) else path
        if not (lampe is None or lampe is False or lampe == "auto"
                or isinstance(lampe, LampeConfig)):
            raise LampeError(
                f"lampe is {lampe!r:.80}; give a LampeConfig, \"auto\", False, or nothing"
            )
        if attention not in (None, "fused", "portable"):
            raise LampeError(f"attention is {attention!r:.80}; give \"fused\" or \"portable\", or "
                             "nothing")
        if n_ctx < 0:
            raise LampeError(f"n_ctx is {n_ctx}; give a number of tokens, or 0 for as many as "
                             "the model supports")
        if n_batch < 1:
            raise LampeError(f"n_batch is {n_batch}; give a number of tokens, at least 1")
        if options.get("vocab_only") and n_ctx == 0:
            n_ctx = VOCAB_ONLY_N_CTX
        if options.get("n_threads") is None:
            # llama-cpp-python would take half of the processors, even where each is a core
            options["n_threads"] = usable_cores()
        rpc_servers = peers.require_endpoints(rpc_servers)
        if rpc_servers:
            options.setdefault("n_gpu_layers", -1)
        self._given = {"lampe": lampe, "attention": attention, "kv_overrides": kv_overrides,
                       "rpc_servers": rpc_servers}
        overrides = dict(kv_overrides or {})
        if lampe is False:
            given, n_ctx = _without(file, n_ctx)
            overrides = {**given, **overrides}
        elif lampe is not None:
            overrides = {**_overrides(file, lampe), **overrides}

        self._loading = opening.Loading(on_load)

        def load() -> None:
            try:
                with quiet(not verbose):
                    if rpc_servers:
                        self._loading.devices = peers.connect(rpc_servers)
                    super(LampeLlama, self).__init__(
                        path,
                        n_ctx=n_ctx,
                        n_batch=n_batch,
                        flash_attn=flash_attn,
                        verbose=verbose,
                        kv_overrides=overrides or None,
                        **options,
                    )
            except Exception as error:
                raise opening.failure(self, error, path) from None
            self._model.__class__ = Model
            if attention is not None and api.is_enabled(self._ctx.ctx):
                api.set_path(self._ctx.ctx, attention)

        # llama.cpp calls Python for each line of its log: in the main thread, Ctrl-C would be
        # raised there, printed and forgotten
        try:
            if threading.current_thread() is threading.main_thread():
                run_aside(load, self._loading.stop)
            else:
                load()
        except BaseException:
            self.close()  # the exception holds the object, and what it has by then
            raise
        finally:
            self._loading.end()
        self._match_context()
        self._ctx.__class__ = Context
        self._ctx.calls = self._calls
        api.set_abort_flag(self._ctx.ctx, self._calls.abort)

    def _match_context(self) -> None:
        """Room for as many tokens as the context holds, which is rounded up from what was asked."""
        n_ctx = self.n_ctx()
        if len(self.input_ids) < n_ctx:
            self.input_ids = np.ndarray((n_ctx,), dtype=np.intc)
            if self._logits_all:
                self.scores = np.ndarray((n_ctx, self._n_vocab), dtype=np.single)

    def __enter__(self) -> LampeLlama:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        config = self.lampe_config
        return {**super().__getstate__(), **self._given, "config": config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        config = state["config"]
        self.__init__(**{k: v for k, v in state.items() if k != "config"})  # type: ignore[misc]
        if config is not None and config != self.lampe_config:
            self.set_config(config)

    @property
    def lampe_config(self) -> LampeConfig | None:
        """The configuration in force, None for plain RoPE."""
        return api.get_config(self._ctx.ctx)

    @property
    def path(self) -> str:
        """Which attention runs: "off" (plain RoPE), "portable" or "fused"."""
        return api.get_path(self._ctx.ctx)

    @property
    def path_reason(self) -> str:
        """Why `path` is not "fused", as "Vulkan0 has no fused attention ..."; "" where it is."""
        return api.get_path_reason(self._ctx.ctx)

    def plan(self) -> Plan | None:
        """The plan of the newest token, None where nothing was read or LaMPE is off."""
        if self.n_tokens == 0:  # the backend's is of what was read last, forgotten or not
            return None
        return api.get_sequence_plan(self._ctx.ctx)

    def plan_for(self, length: int) -> Plan | None:
        """The plan for an input of `length` tokens, None where LaMPE is off."""
        return api.get_plan(self._ctx.ctx, length)

    def set_config(self, config: LampeConfig) -> None:
        """Use other values from the next token on; cached keys carry no positions."""
        api.set_config(self._ctx.ctx, config)
        self._is_mixed = self._is_mixed or self.n_tokens > 0

    def cancel(self) -> None:
        """Stop the call that is under way, be it reading, writing or not yet; from any thread.

        It raises Cancelled there, within a second. Does nothing while nothing is under way, and
        nothing to the calls that follow.
        """
        self._calls.cancel()

    def close(self) -> None:
        """Free the model. What another thread computes with it is cancelled and waited for.

        From then on, whatever needs the model raises LampeError. Closing twice does nothing.
        """
        if not self._calls.close():
            return
        super().close()
        for name in ("_batch", "_ctx", "_model"):
            left = self.__dict__.get(name)
            if left is not None:  # pointers into memory that was freed, some of them
                left.__dict__.clear()
                left.__class__ = Closed

    def __del__(self) -> None:
        calls = self.__dict__.get("_calls")
        if calls is not None:  # the object may never have come to be
            try:
                calls.abandon()
                self.close()
            except BaseException:  # it would be printed and forgotten; at the end of the program
                pass               # modules have gone before, contextlib's suppress among them

    def eval(self, tokens: Sequence[int]) -> None:
        """Read tokens; raises Cancelled, or LampeError where the backend refuses them."""
        tokens = list(tokens)
        self._begin(tokens)
        total = len(tokens)
        for start in range(0, max(total, 1), self.n_batch):
            self._read_batch(super().eval, tokens[start : start + self.n_batch])
            if total > 1 and self.progress is not None:
                self.progress(min(start + self.n_batch, total), total)

    def read_logits(
        self, tokens: Sequence[int]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Read tokens and give the logits of all of them, batch by batch.

        Yields (index in `tokens` of the batch's first token, logits [n, n_vocab]); the array is
        the backend's own and lasts until the next step. Raises as `eval` does.
        """
        tokens = list(tokens)
        self._begin(tokens)
        for start in range(0, len(tokens), self.n_batch):
            batch = tokens[start : start + self.n_batch]
            self._read_batch(self._decode_all, batch)
            pointer = self._ctx.get_logits()
            yield start, np.ctypeslib.as_array(pointer, shape=(len(batch), self.n_vocab()))

    def _create_completion(self, *arguments: Any, **options: Any) -> Any:
        require_tokens([int(token) for token in options.get("logit_bias") or ()], self.n_vocab())
        return super()._create_completion(*arguments, **options)

    def embed(self, *arguments: Any, **options: Any) -> Any:
        """As llama_cpp.Llama.embed; whatever was read before is forgotten, even where it fails."""
        try:
            return super().embed(*arguments, **options)
        except BaseException:
            self.reset()  # the memory may be empty already
            raise

    def reset(self) -> None:
        """Forget what was read, with its plan and the length announced for it."""
        self._calls.wrote()
        self._is_mixed = False
        super().reset()
        if self._ctx.memory is not None:
            self._ctx.kv_cache_seq_rm(-1, 0, -1)
        if self._announced:
            self._announced = 0
            api.set_prompt_length(self._ctx.ctx, 0)

    def load_state(self, state: Any) -> None:
        """As llama_cpp.Llama.load_state; LampeError for a state of the other kind of keys."""
        self._calls.wrote()
        self._is_mixed = True
        try:
            super().load_state(state)
        except RuntimeError as error:
            raise Refused(opening.reason(str(error))) from None

    def _begin(self, tokens: list[int]) -> None:
        require_tokens(tokens, self.n_vocab())
        # what was rewound goes first: an announcement ends with tokens that are removed after it
        self._ctx.kv_cache_seq_rm(-1, self.n_tokens, -1)
        self._announce(len(tokens))

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
        api.set_prompt_length(self._ctx.ctx, self._announced)

    def _read_batch(self, read: Callable[[list[int]], None], batch: list[int]) -> None:
        try:
            self._calls.check()
            read(batch)
        except BaseException:
            self._requires_eval = True
            raise

    def _decode_all(self, batch: list[int]) -> None:
        """Llama.eval, but with all logits: Llama's own way holds those of the whole context."""
        start = self.n_tokens
        self._ctx.kv_cache_seq_rm(-1, start, -1)
        self._batch.set_batch(batch=batch, n_past=start, logits_all=True)
        self._ctx.decode(self._batch)
        self.input_ids[start : start + len(batch)] = batch
        self.n_tokens = start + len(batch)
