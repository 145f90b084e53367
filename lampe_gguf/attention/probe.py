"""Attention weights of the running model, through llama.cpp's evaluation callback.

Fused attention never holds its weights. A second context on the same model, with attention from
stock operators, does: plain RoPE in a node `kq_soft_max-<layer>`, LaMPE in several named
`kq_weights-<layer>-<first token>-<first cell>`, one for each region of positions and block of
tokens. Every pair of a query and a key has its weight in one of them, and zero in the others.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..backend import api
from ..backend.worker import run_aside
from ..errors import LampeError
from .state import get_state, set_state, transpose_values

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

WEIGHTS = (b"kq_soft_max-", b"kq_weights-")
OUTPUT = b"kqv_out-"  # comes when a layer has used all of its weights
F32 = 0  # enum ggml_type
BATCH = 32  # tokens per call: unfused attention holds BATCH x heads x keys scores, several times
SUM_TOLERANCE = 1e-3  # how far from 1 the f32 sum of a row may be

# (layer, position of the query, its weights over keys 0 ... query: [n_head, query + 1])
OnRows = Callable[[int, int, npt.NDArray[np.float32]], None]


class _Tensor(ctypes.Structure):
    """struct ggml_tensor, up to its name"""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    ]


class Probe:
    """A second context on the model of `llm`, with the same positions and its weights in sight.

    on_rows  gets the attention of the queries that `read` is told of, layer by layer, in the
             thread that computes; what it raises comes out of `read`

    `close` it before `llm`. Raises LampeError where there is no memory for it.
    """

    def __init__(self, llm: LampeLlama, on_rows: OnRows) -> None:
        module = api.llama_cpp()
        from llama_cpp import _internals as internals

        self.on_rows = on_rows
        self.n_tokens = 0
        self._config = llm.lampe_config
        self._context: Any
        self._batch_tokens: list[int] = []
        self._wanted: list[int] = []  # indices in the batch
        self._rows: dict[int, npt.NDArray[np.float32]] = {}  # by index in the batch, of one layer
        self._raised: BaseException | None = None
        self._stop = ctypes.c_bool(False)
        # ctypes keeps no reference of its own, and llama.cpp calls it as long as the context lives
        self._callback = module.ggml_backend_sched_eval_callback(self._on_node)
        params = type(llm.context_params).from_buffer_copy(llm.context_params)
        params.flash_attn_type = module.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.n_batch = params.n_ubatch = BATCH
        params.cb_eval = self._callback

        def create() -> None:
            try:
                self._context = internals.LlamaContext(
                    model=llm._model, params=params, verbose=False
                )
            except ValueError as error:
                raise LampeError(
                    api.last_error()
                    or f"{error}; is there memory for {params.n_ctx:,} tokens twice? give less"
                ) from None
            if self._config is not None:
                api.set_path(self._context.ctx, "portable")
                api.set_config(self._context.ctx, self._config)
            elif api.is_enabled(self._context.ctx):
                api.set_enabled(self._context.ctx, False)

        # see LampeLlama: the log's lines must not be written where Ctrl-C is raised
        run_aside(create, lambda: None)
        api.set_abort_flag(self._context.ctx, self._stop)
        self._batch = internals.LlamaBatch(n_tokens=BATCH, embd=0, n_seq_max=1, verbose=False)
        self._n_vocab = llm.n_vocab()
        self._n_cells = module.llama_n_ctx(self._context.ctx)
        self._tensor_get = _tensor_get()

    def close(self) -> None:
        self._batch.close()
        self._context.close()

    @property
    def path(self) -> str:
        """Which attention runs here: "portable", or "off" where LaMPE is."""
        return api.get_path(self._context.ctx)

    def take_over(self, llm: LampeLlama, length: int) -> None:
        """Begin with what `llm` has read of an input of `length` tokens, and forget all else."""
        self._context.kv_cache_clear()
        self.n_tokens = 0
        if llm.n_tokens:
            self._copy(llm)
        # last: setting a state withdraws it
        if self._config is not None and self._config.length_policy == "prompt":
            api.set_prompt_length(self._context.ctx, length)

    def _copy(self, llm: LampeLlama) -> None:
        # what was rewound is still in there
        llm._ctx.kv_cache_seq_rm(-1, llm.n_tokens, -1)
        state = get_state(llm.ctx)
        if transpose_values(state) != llm.n_tokens:
            raise LampeError("the backend's state does not hold what was read; read it again")
        set_state(self._context.ctx, state)
        self.n_tokens = llm.n_tokens

    def read(
        self,
        tokens: Sequence[int],
        queries: Sequence[int] = (),
        on_tokens: Callable[[int], None] | None = None,
    ) -> None:
        """Read tokens after what was read so far.

        queries    positions, counted from the input's beginning, whose rows `on_rows` gets
        on_tokens  called with the number of tokens of each batch

        Raises what on_rows raises, KeyboardInterrupt within a second (the context must then be
        given its beginning again), and LampeError where the backend fails.
        """
        wanted = set(queries)
        for start in range(0, len(tokens), BATCH):
            batch = list(tokens[start : start + BATCH])
            self._wanted = [i for i in range(len(batch)) if self.n_tokens + i in wanted]
            self._batch.set_batch(batch=batch, n_past=self.n_tokens, logits_all=False)
            self._batch_tokens = batch
            self._rows = {}
            # never in the main thread: there Ctrl-C could raise while ctypes enters the callback,
            # outside of any try, and be lost
            self._raised = None
            self._stop.value = False
            try:
                run_aside(self._decode, self._cancel)
            finally:
                self._stop.value = False
            if self._raised is not None:
                raise self._raised
            self.n_tokens += len(batch)
            if on_tokens is not None:
                on_tokens(len(batch))

    def logits(self) -> npt.NDArray[np.float32]:
        """Of the last token read: [n_vocab]; the backend's own, until the next `read`."""
        pointer = api.llama_cpp().llama_get_logits_ith(self._context.ctx, -1)
        return np.ctypeslib.as_array(pointer, shape=(self._n_vocab,))

    def _cancel(self) -> None:
        self._stop.value = True

    def _decode(self) -> None:
        try:
            self._context.decode(self._batch)
        except RuntimeError as error:
            raise LampeError(api.last_error() or str(error)) from None

    def _on_node(self, address: int, ask: bool, _: Any) -> bool:
        # nothing may be raised into C: it would be printed and forgotten
        if self._raised is not None:
            return False
        try:
            tensor = _Tensor.from_address(address)
            if ask:
                return bool(self._wanted) and tensor.name.startswith((*WEIGHTS, OUTPUT))
            if tensor.name.startswith(OUTPUT):
                self._give_rows(int(tensor.name[len(OUTPUT):]))
            else:
                self._add_weights(tensor, address)
            return True
        except BaseException as error:
            self._raised = error
            return False

    def _add_weights(self, tensor: _Tensor, address: int) -> None:
        n_cells, n_tokens, n_head, n_stream = tensor.ne
        _, *place = tensor.name.split(b"-")[1:]
        token, cell = (int(x) for x in place) if place else (0, 0)
        if (tensor.type != F32 or n_stream != 1 or tensor.nb[0] != 4
                or token + n_tokens > len(self._batch_tokens)):
            raise LampeError("the backend computes attention in an unknown shape; "
                             f"use the pinned backend ({api.SETUP_COMMAND})")
        row = np.empty(n_cells, dtype=np.float32)
        for i in self._wanted:
            if not token <= i < token + n_tokens:
                continue
            rows = self._rows.setdefault(i, np.zeros((n_head, self._n_cells), dtype=np.float32))
            for head in range(n_head):
                offset = (i - token) * tensor.nb[1] + head * tensor.nb[2]
                self._tensor_get(address, row.ctypes.data, offset, row.nbytes)
                rows[head, cell : cell + n_cells] += row

    def _give_rows(self, layer: int) -> None:
        given, self._rows = self._rows, {}
        for i, rows in sorted(given.items()):
            query = self.n_tokens + i
            # the cells of one unbroken sequence are in its order: nothing is seen beyond the query
            if rows[:, query + 1 :].any() or abs(rows.sum(axis=1) - 1).max() > SUM_TOLERANCE:
                raise LampeError("the attention weights of this model are no distributions over "
                                 "the tokens read (attention sinks?), so they have no entropy")
            self.on_rows(layer, query, rows[:, : query + 1])


def _tensor_get() -> Any:
    """ggml_backend_tensor_get(tensor, data, offset, size): from whatever device it is on."""
    from llama_cpp._ggml import libggml

    function = libggml.ggml_backend_tensor_get
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    function.restype = None
    return function
