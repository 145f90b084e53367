"""Tiny random-weight GGUF models, so that a test costs milliseconds and needs no download.

The models answer nothing sensible; they run every line of the graph that a real model of the same
architecture runs. The vocabulary is a byte-level SentencePiece one: any text can be tokenised, one
token for each character.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'"
    " + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# architecture -> (layer norm with bias?, heads must fill the embedding?, RMS norms on Q and K?)
_SHAPES = {
    "llama": (False, False, False),
    "smollm3": (False, False, False),  # every fourth layer without RoPE
    "qwen2": (False, True, False),
    "qwen3": (False, False, True),
    "maincoder": (False, False, True),  # normalises queries and keys after RoPE
    "stablelm": (True, True, False),
    "gptneox": (True, True, False),
    "phi2": (True, True, False),
    "gemma2": (False, False, False),
    "gemma3": (False, False, True),
}
GEMMA = ("gemma2", "gemma3")  # more norms, embeddings that are the output's weights, too

ARCHITECTURES = tuple(_SHAPES)

_LAMPE_TYPES = {
    "version": "uint32",
    "method": "string",
    "window": "uint32",
    "context_length": "uint32",
    "local_window": "uint32",
    "tail_window": "uint32",
    "max_mapping_length": "float64",
    "slope": "float64",
    "offset": "float64",
    "short_length": "uint32",
    "short_mapping_length": "uint32",
    "attention_factor": "float64",
    "length_policy": "string",
    "length_step": "uint32",
    "group_size": "uint32",
    "provenance": "string",
}


def make_tiny_model(
    path: str | Path,
    *,
    arch: str = "llama",
    n_embd: int | None = None,
    n_head: int = 4,
    n_head_kv: int = 2,
    n_layer: int = 2,
    head_dim: int = 64,
    n_rot: int | None = None,
    n_ff: int = 128,
    n_vocab: int = 384,
    window: int = 256,
    rope_freq_base: float = 10000.0,
    rope_freqs: Sequence[float] | None = None,
    rope_scaling: Mapping[str, Any] | None = None,
    lampe: Any = None,
    extra: Mapping[str, Any] | None = None,
    chat_template: str | None = CHATML,
    add_bos: bool = False,
    name: str = "tiny",
    sharpness: float = 2.0,
    f16: bool = False,
    seed: int = 0,
) -> Path:
    """Write a random model of `arch` to `path` and return the path.

    arch          one of ARCHITECTURES: llama and smollm3 are RoPE NORM, the others NEOX;
                  stablelm, gptneox and phi2 take a partial rotary width `n_rot` (default: half the
                  head, else all of it); gemma2 and gemma3 want a sliding window and its pattern in
                  `extra`
    rope_freqs    [n_rot / 2] frequency factors (llama only: tensor rope_freqs.weight)
    rope_scaling  keys below `{arch}.rope.scaling.`, e.g. {"type": "yarn", "factor": 4.0,
                  "original_context_length": 64}
    lampe         LaMPE metadata to add: a LampeConfig, or a mapping of key names to values, or to
                  (type, value) pairs such as ("float32", 1.0) to write a wrong type on purpose
    extra         further metadata, full key -> value (str, bool, int as uint32, float as float32)
    sharpness     factor on the query and key weights; larger makes attention more peaked
    """
    import gguf

    has_bias, heads_fill, qk_norm = _SHAPES[arch]
    if n_embd is None:
        n_embd = n_head * head_dim
    if heads_fill and n_embd != n_head * head_dim:
        raise ValueError(f"{arch} needs n_embd = n_head * head_dim")
    partial = arch in ("stablelm", "gptneox", "phi2")
    if n_rot is None:
        n_rot = head_dim // 2 if partial else head_dim
    if rope_freqs is not None and (arch != "llama" or len(rope_freqs) != n_rot // 2):
        raise ValueError("rope_freqs: llama only, n_rot / 2 numbers")
    if arch == "gptneox":
        n_head_kv = n_head  # its converter and graph know no grouped queries

    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_name(name)
    writer.add_context_length(window)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_head_count_kv(n_head_kv)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(n_rot)
    writer.add_rope_freq_base(rope_freq_base)
    writer.add_vocab_size(n_vocab)
    if has_bias:
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_layer_norm_rms_eps(1e-5)
    if arch in ("gptneox", "stablelm"):
        writer.add_parallel_residual(True)
    for key, value in (rope_scaling or {}).items():
        _add(writer, f"{arch}.rope.scaling.{key}", value)
    for key, value in lampe_items(lampe):
        getattr(writer, f"add_{value[0]}")(f"{arch}.rope.scaling.lampe.{key}", value[1])
    for key, value in (extra or {}).items():
        _add(writer, key, value)
    _add_vocabulary(writer, n_vocab, add_bos)
    if chat_template is not None:
        writer.add_chat_template(chat_template)

    rng = np.random.default_rng(seed)
    n_q, n_kv = n_head * head_dim, n_head_kv * head_dim

    def matrix(name: str, n_out: int, n_in: int, scale: float = 1.0) -> None:
        data = rng.standard_normal((n_out, n_in)) * (scale / np.sqrt(n_in))
        writer.add_tensor(f"{name}.weight", data.astype(np.float16 if f16 else np.float32))

    def norm(name: str, n: int, bias: bool = has_bias) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(n, dtype=np.float32))
        if bias:
            vector(f"{name}.bias", n)

    def vector(name: str, n: int) -> None:
        writer.add_tensor(name, (0.1 * rng.standard_normal(n)).astype(np.float32))

    # Gemma's graph scales its embeddings
    matrix("token_embd", n_vocab, n_embd, 3.0 if arch in GEMMA else np.sqrt(n_embd))
    if rope_freqs is not None:
        writer.add_tensor("rope_freqs.weight", np.asarray(rope_freqs, dtype=np.float32))
    for i in range(n_layer):
        block = f"blk.{i}"
        norm(f"{block}.attn_norm", n_embd)
        if arch == "gptneox":
            matrix(f"{block}.attn_qkv", n_q + 2 * n_kv, n_embd, sharpness)
            vector(f"{block}.attn_qkv.bias", n_q + 2 * n_kv)
        else:
            matrix(f"{block}.attn_q", n_q, n_embd, sharpness)
            matrix(f"{block}.attn_k", n_kv, n_embd, sharpness)
            matrix(f"{block}.attn_v", n_kv, n_embd)
        if arch in ("qwen2", "phi2"):
            for part, n in (("q", n_q), ("k", n_kv), ("v", n_kv)):
                vector(f"{block}.attn_{part}.bias", n)
        if qk_norm:
            norm(f"{block}.attn_q_norm", head_dim, bias=False)
            norm(f"{block}.attn_k_norm", head_dim, bias=False)
        matrix(f"{block}.attn_output", n_embd, n_q)
        if arch in GEMMA:
            norm(f"{block}.post_attention_norm", n_embd)
            norm(f"{block}.post_ffw_norm", n_embd)
        if arch != "phi2":
            norm(f"{block}.ffn_norm", n_embd)
        gated = arch in ("llama", "smollm3", "qwen2", "qwen3", "maincoder", "stablelm", *GEMMA)
        if gated:
            matrix(f"{block}.ffn_gate", n_ff, n_embd)
        matrix(f"{block}.ffn_up", n_ff, n_embd)
        matrix(f"{block}.ffn_down", n_embd, n_ff)
        if not gated:
            vector(f"{block}.attn_output.bias", n_embd)
            vector(f"{block}.ffn_up.bias", n_ff)
            vector(f"{block}.ffn_down.bias", n_embd)
    norm("output_norm", n_embd)
    if arch not in GEMMA:
        matrix("output", n_vocab, n_embd, 3.0)
    if arch == "phi2":
        vector("output.bias", n_vocab)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def _add(writer: Any, key: str, value: Any) -> None:
    kind = {bool: "bool", int: "uint32", float: "float32", str: "string"}[type(value)]
    getattr(writer, f"add_{kind}")(key, value)


def lampe_items(lampe: Any) -> list[tuple[str, tuple[str, Any]]]:
    """LaMPE metadata as (key, (GGUF type, value)), written here from the format's table and not
    by the package, so that the two check each other."""
    if lampe is None:
        return []
    values = dict(lampe) if isinstance(lampe, Mapping) else dataclasses.asdict(lampe)
    items = []
    for key, value in values.items():
        if not isinstance(value, tuple):
            value = (_LAMPE_TYPES[key], float(value) if "float" in _LAMPE_TYPES[key] else value)
        items.append((key, value))
    return items


def _add_vocabulary(writer: Any, n_vocab: int, add_bos: bool) -> None:
    from gguf import TokenType

    tokens = ["<unk>", "<s>", "</s>"]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    types += [TokenType.BYTE] * 256
    tokens += ["▁" if byte == 32 else chr(byte) for byte in range(32, 127)]
    types += [TokenType.NORMAL] * 95
    tokens += ["<|im_start|>", "<|im_end|>"]
    types += [TokenType.CONTROL] * 2
    if n_vocab < len(tokens):
        raise ValueError(f"n_vocab must be at least {len(tokens)}")
    types += [TokenType.NORMAL] * (n_vocab - len(tokens))
    tokens += [f"▁word{i}" for i in range(n_vocab - len(tokens))]

    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(n_vocab)])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(tokens.index("<|im_end|>"))
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(add_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
