"""A whole tiny model in float64 NumPy, attention by the reference: what the backend must compute.

Reads the weights back from the GGUF file, so it shares nothing with llama.cpp but the file.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from lampe_gguf.method.config import LampeConfig
from lampe_gguf.method.positions import identity_plan
from lampe_gguf.method.reference import NEOX, NORM, Rope, attention


class TinyOracle:
    """`logits(tokens, config)` for llama and smollm3 (RoPE NORM), qwen2, gemma2 and gemma3 (NEOX).

    SmolLM3 has no RoPE in every fourth layer. In Gemma's layers that see a sliding window,
    positions stay as they are.
    """

    def __init__(self, path: Path, rope: Rope | None = None) -> None:
        reader = gguf.GGUFReader(str(path))
        self.weights = {t.name: np.asarray(t.data, dtype=np.float64) for t in reader.tensors}
        self.arch = self._value(reader, "general.architecture")
        self.n_head = self._value(reader, f"{self.arch}.attention.head_count")
        self.n_head_kv = self._value(reader, f"{self.arch}.attention.head_count_kv")
        self.head_dim = self._value(reader, f"{self.arch}.attention.key_length")
        self.n_layer = self._value(reader, f"{self.arch}.block_count")
        mode = NORM if self.arch in ("llama", "smollm3") else NEOX
        self.rope = rope or Rope(self.head_dim, mode)
        self.gemma = self.arch.startswith("gemma")
        self.n_swa = self._value(reader, f"{self.arch}.attention.sliding_window", 0)
        self.pattern = self._value(reader, f"{self.arch}.attention.sliding_window_pattern", 1)
        self.rope_swa = dataclasses.replace(
            self.rope, freq_base=self._value(reader, f"{self.arch}.rope.freq_base_swa", 10000.0)
        )
        self.softcap = self._value(reader, f"{self.arch}.attn_logit_softcapping", 0.0)
        self.final_softcap = self._value(reader, f"{self.arch}.final_logit_softcapping", 0.0)

    @staticmethod
    def _value(reader: Any, key: str, default: Any = None) -> Any:
        if default is not None and key not in reader.fields:
            return default
        return reader.fields[key].contents()

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        out = x @ self.weights[f"{name}.weight"].T
        return out + self.weights.get(f"{name}.bias", 0.0)

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * self.weights[f"{name}.weight"]

    def logits(
        self,
        tokens: list[int],
        config: LampeConfig | None,
        prompt_length: int | None = None,
        key_type: Any = np.float64,
    ) -> np.ndarray:
        """[n_tokens, n_vocab]; key_type is what keys and values are rounded to in the cache."""
        n = len(tokens)
        plans = config.plans_for(n, prompt_length) if config else [identity_plan()] * n
        factor = config.attention_factor if config else 1.0
        # the model's own RoPE applies YaRN's magnitude, at position 0 or not
        magnitude = self.rope.yarn_magnitude()
        x = self.weights["token_embd.weight"][tokens]
        if self.gemma:
            x = x * np.sqrt(x.shape[1])
        at = np.arange(n)
        near = at[:, None] - at < self.n_swa
        for i in range(self.n_layer):
            block = f"blk.{i}"
            h = self._norm(f"{block}.attn_norm", x)
            q, k, v = (
                self._linear(f"{block}.attn_{part}", h).reshape(n, -1, self.head_dim)
                for part in "qkv"
            )
            if f"{block}.attn_q_norm.weight" in self.weights:
                q, k = self._norm(f"{block}.attn_q_norm", q), self._norm(f"{block}.attn_k_norm", k)
            q[..., : self.rope.n_rot] *= magnitude
            k[..., : self.rope.n_rot] *= magnitude
            k, v = (each.astype(key_type).astype(np.float64) for each in (k, v))
            rope = self.rope
            without = self.arch == "smollm3" and i % 4 == 3
            if without:
                rope = dataclasses.replace(rope, freq_scale=0.0)  # turns by nothing
            slides = i % self.pattern < self.pattern - 1
            out = attention(
                q, k, v, at, at, [identity_plan()] * n if slides else plans,
                self.rope_swa if slides else rope, scale=self.head_dim**-0.5,
                attention_factor=1.0 if slides or without else factor, softcap=self.softcap,
                mask=near if slides else None,
            )
            out = self._linear(f"{block}.attn_output", out.reshape(n, -1))
            x = x + (self._norm(f"{block}.post_attention_norm", out) if self.gemma else out)
            h = self._norm(f"{block}.ffn_norm", x)
            gate = self._linear(f"{block}.ffn_gate", h)
            up = self._linear(f"{block}.ffn_up", h)
            if self.gemma:
                gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
                out = self._linear(f"{block}.ffn_down", gelu * up)
                x = x + self._norm(f"{block}.post_ffw_norm", out)
            else:
                x = x + self._linear(f"{block}.ffn_down", gate / (1 + np.exp(-gate)) * up)
        x = self._norm("output_norm", x)
        if not self.gemma:
            return self._linear("output", x)
        out = self._linear("token_embd", x)
        return self.final_softcap * np.tanh(out / self.final_softcap) if self.final_softcap else out
