"""Tiny models of any architecture of llama.cpp, with random weights, made without a file.

llama.cpp itself knows which tensors an architecture has: it is given metadata that any of them can
read (as its own tests do), and asks for the values of each tensor.
"""

from __future__ import annotations

import ctypes
import dataclasses
import zlib
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
from tiny_model import lampe_items

from lampe_gguf.backend import api as backend
from lampe_gguf.method.config import LampeConfig

N_VOCAB, N_LAYER, N_EMBD, N_HEAD, N_FF = 128, 2, 256, 4, 384
F32, F16 = 0, 1
GGUF_U32, GGUF_F32 = 4, 6

SetTensor = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


def _base() -> Any:
    folder = Path(backend.library_path()).parent
    base = ctypes.CDLL(str(next(folder.glob("*ggml-base*"))))
    base.gguf_init_empty.restype = ctypes.c_void_p
    base.ggml_get_name.restype = ctypes.c_char_p
    for name in ("ggml_nelements", "ggml_nrows"):
        getattr(base, name).restype = ctypes.c_int64
    base.ggml_nbytes.restype = ctypes.c_size_t
    for name in ("ggml_get_name", "ggml_nelements", "ggml_nrows", "ggml_nbytes", "gguf_free"):
        getattr(base, name).argtypes = [ctypes.c_void_p]
    base.ggml_backend_tensor_set.argtypes = [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    kinds = {"u32": ctypes.c_uint32, "f32": ctypes.c_float, "f64": ctypes.c_double,
             "bool": ctypes.c_bool, "str": ctypes.c_char_p}
    for name, kind in kinds.items():
        getattr(base, f"gguf_set_val_{name}").argtypes = [ctypes.c_void_p, ctypes.c_char_p, kind]
    base.gguf_set_arr_data.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    base.gguf_set_arr_str.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_size_t]
    return base


def values(arch: str, window: int, sliding: int) -> dict[str, Any]:
    """Metadata that suits any architecture, by key without its prefix; each takes what it knows."""
    head = N_EMBD // N_HEAD
    found: dict[str, Any] = {
        "vocab_size": N_VOCAB, "context_length": window, "embedding_length": N_EMBD,
        "block_count": N_LAYER, "leading_dense_block_count": 1, "feed_forward_length": N_FF,
        "use_parallel_residual": False, "logit_scale": 1.0, "attention.head_count": N_HEAD,
        "attention.head_count_kv": N_HEAD, "attention.key_length": head,
        "attention.value_length": head, "attention.clamp_kqv": 30.0,
        "attention.layer_norm_epsilon": 1e-5, "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.group_norm_epsilon": 1e-5, "attention.group_norm_groups": 8,
        "rope.dimension_count": head, "residual_scale": 1.0, "embedding_scale": 1.0,
        "attention.scale": head**-0.5,
        "expert_feed_forward_length": N_FF, "expert_shared_feed_forward_length": N_FF // 2,
        "interleave_moe_layer_step": 2, "expert_count": 2, "expert_used_count": 2,
        "expert_shared_count": 1, "expert_gating_func": 2, "expert_group_scale": 1.0,
        "experts_per_group": 1, "expert_weights_scale": 1.0,
        "xielu.alpha_n": 1.0, "xielu.alpha_p": 1.0, "xielu.beta": 1.0, "xielu.eps": 1e-7,
    }
    if sliding:
        found |= {"attention.sliding_window": sliding, "attention.sliding_window_pattern": 2,
                  "rope.freq_base_swa": 1000.0}
    return found


class RandomModel:
    """A model of `arch`, with LaMPE's metadata; a context manager. ValueError where it is refused.

    sliding  a window for the architectures that have layers with one, every other layer
    qk_norm  what norms of queries and keys multiply with, about
    changes  further metadata, or other values of them

    `path` is the attention of the last logits.
    """

    path = ""
    reason = ""

    def __init__(
        self, arch: str, config: LampeConfig, *, sliding: int = 0, qk_norm: float = 1.0,
        n_gpu_layers: int = 0, **changes: Any,
    ) -> None:
        base = _base()
        meta = base.gguf_init_empty()

        def put(key: str, value: Any, kind: str = "") -> None:
            if isinstance(value, list):
                data = np.array(value, dtype=np.uint32)
                base.gguf_set_arr_data(meta, key.encode(), GGUF_U32, data.ctypes.data, len(value))
                return
            kind = kind or {bool: "bool", int: "u32", float: "f32", str: "str"}[type(value)]
            value = value.encode() if kind == "str" else value
            getattr(base, f"gguf_set_val_{kind}")(meta, key.encode(), value)

        put("general.architecture", arch)
        for key, value in (values(arch, config.window, sliding) | changes).items():
            put(key if key.startswith("xielu.") else f"{arch}.{key}", value)
        for key, (kind, value) in lampe_items(dataclasses.asdict(config)):
            short = {"uint32": "u32", "float64": "f64", "string": "str"}[kind]
            put(f"{arch}.rope.scaling.lampe.{key}", value, short)
        self.n_vocab = n = int(changes.get("vocab_size", N_VOCAB))
        put("tokenizer.ggml.model", "test")
        names = (ctypes.c_char_p * n)(*(f"tok_{i}".encode() for i in range(n)))
        base.gguf_set_arr_str(meta, b"tokenizer.ggml.tokens", names, n)
        scores = np.zeros(n, dtype=np.float32)
        base.gguf_set_arr_data(meta, b"tokenizer.ggml.scores", GGUF_F32, scores.ctypes.data, n)

        def fill(tensor: int, _: Any) -> None:
            name = base.ggml_get_name(tensor).decode()
            n = base.ggml_nelements(tensor)
            rows = base.ggml_nrows(tensor)
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            data = rng.standard_normal(n)
            if name.endswith("scale") or ("norm" in name and name.endswith("weight")):
                data = 1 + 0.1 * data
                if "attn_q_norm" in name or "attn_k_norm" in name:
                    data *= qk_norm
            elif rows == 1:
                data = 0.1 * data
            else:
                # peaked enough for positions to matter
                data *= (2.0 if "attn_q" in name or "attn_k" in name else 1.0) / np.sqrt(n / rows)
            data = np.ascontiguousarray(
                data.astype(np.float32 if base.ggml_nbytes(tensor) == 4 * n else np.float16))
            base.ggml_backend_tensor_set(tensor, data.ctypes.data, 0, data.nbytes)

        self._fill = SetTensor(fill)
        library = lib._lib
        library.llama_model_init_from_user.restype = ctypes.c_void_p
        library.llama_model_init_from_user.argtypes = [
            ctypes.c_void_p, SetTensor, ctypes.c_void_p, lib.llama_model_params]
        params = lib.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        self.model = library.llama_model_init_from_user(meta, self._fill, None, params)
        base.gguf_free(meta)
        if not self.model:
            raise ValueError(backend.last_error() or "the model was not made")

    def __enter__(self) -> RandomModel:
        return self

    def __exit__(self, *_: Any) -> None:
        lib.llama_model_free(self.model)

    def logits(
        self, tokens: list[int], lampe: LampeConfig | None, fused: bool,
        batches: list[int] | None = None, n_ubatch: int = 64, *, flash_attn: bool | None = None,
    ) -> np.ndarray:
        """[n_tokens, n_vocab]; lampe None: off. ValueError where the context is refused.

        fused       False: the portable path by name
        flash_attn  what the context is asked for; None: as fused
        """
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 256, 256, n_ubatch
        params.n_threads = params.n_threads_batch = 2
        params.flash_attn_type = int(fused if flash_attn is None else flash_attn)
        params.type_k = params.type_v = F32  # rounded keys would hide small differences
        context = lib.llama_init_from_model(self.model, params)
        if not context:
            raise ValueError(backend.last_error() or "the context was not made")
        try:
            if lampe is None:
                backend.set_enabled(context, False)
            else:
                if not fused:
                    backend.set_path(context, "portable")
                backend.set_config(context, lampe)
                self.path = backend.get_path(context)
                self.reason = backend.get_path_reason(context)
            found, start = [], 0
            for size in batches or [len(tokens)]:
                found.append(self._decode(context, tokens[start : start + size], start))
                start += size
            return np.concatenate(found)
        finally:
            lib.llama_free(context)

    def _decode(self, context: Any, tokens: list[int], start: int) -> np.ndarray:
        n = len(tokens)
        batch = lib.llama_batch_init(n, 0, 1)
        batch.n_tokens = n
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, start + i, 1
            batch.seq_id[i][0], batch.logits[i] = 0, True
        try:
            if lib.llama_decode(context, batch):
                raise ValueError(backend.last_error() or "the batch was not decoded")
        finally:
            lib.llama_batch_free(batch)
        rows = lib.llama_get_logits(context)
        return np.ctypeslib.as_array(rows, shape=(n, self.n_vocab)).copy()
