"""What memory a model's cache of keys and values takes, from what its file says."""

from __future__ import annotations

from typing import Any

from .description import ModelInfo

BYTES = 2  # of a number in the cache: half precision


def cache_bytes(info: ModelInfo, n_ctx: int) -> int | None:
    """Bytes of a cache for `n_ctx` tokens in half precision; None where the file does not say.

    Every layer counts in full: one that sees a sliding window only may take less.
    """
    def number(name: str) -> int:
        value: Any = info.values.get(f"{info.architecture}.{name}")
        return value if isinstance(value, int) and 0 < value < 2**31 else 0

    heads = number("attention.head_count")
    kv_heads = number("attention.head_count_kv")
    usual = number("embedding_length") // heads if heads else 0
    key = number("attention.key_length") or usual
    value = number("attention.value_length") or usual
    total = n_ctx * number("block_count") * kv_heads * (key + value) * BYTES
    return total or None
