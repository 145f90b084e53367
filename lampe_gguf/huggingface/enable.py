"""Switch LaMPE on in transformers: the door to attention.py, which needs torch to be imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..method.config import LampeConfig


def enable_lampe(model: PreTrainedModel, config: LampeConfig) -> None:
    """Have a transformers model attend with LaMPE positions from now on, in place.

    model   a decoder that rotates all queries and keys with one rotary embedding (Llama, Mistral,
            Qwen 2 and 3, ...); it takes one sequence at a time, without padding
    config  such as default_config(window), the window in tokens

    Slow and plain: for trying LaMPE (method: sections 1 to 3) on a checkpoint that is not
    converted yet. Raises LampeError for any other model, and where torch and transformers (the
    extra `hf`) are not installed.

    >>> from lampe_gguf import default_config, enable_lampe
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = dict(hidden_size=64, intermediate_size=64, vocab_size=99, num_hidden_layers=2,
    ...              num_attention_heads=2, max_position_embeddings=64)
    >>> model = LlamaForCausalLM(LlamaConfig(**sizes))
    >>> enable_lampe(model, default_config(64))
    >>> model.config._attn_implementation
    'lampe'
    """
    from .attention import attach

    attach(model, config)
