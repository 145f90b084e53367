"""LaMPE in Hugging Face transformers: the same plans on a checkpoint that is not converted yet.

    model = AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
    enable_lampe(model, default_config(8192))

Slow and plain: it is for trying LaMPE on a checkpoint, and an oracle for the backend that shares
no code with it. Needs the extra `hf` (torch and transformers).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import LampeError, how_to_add
from ..method.config import LampeConfig
from ..method.positions import LOCAL, MIDDLE, TAIL, Plan, key_position, query_position, regions

try:
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
except ImportError as error:
    raise LampeError(
        f"transformers with torch is not installed ({error}); {how_to_add('hf')}"
    ) from None

NAME = "lampe"
BLOCK = 256  # queries whose scores are held at once


class Unrotated(torch.nn.Module):  # type: ignore[misc]
    """In the place of a model's rotary embedding: it turns nothing, attention does.

    Queries and keys then reach attention, and the cache, without positions.
    """

    def __init__(self, original: torch.nn.Module) -> None:
        super().__init__()
        self.original = original

    def forward(self, x: torch.Tensor, *args: Any, **options: Any) -> Any:
        cos, sin = self.original(x, *args, **options)
        return torch.ones_like(cos), torch.zeros_like(sin)


class Lampe:
    """What attention needs to know of a model that LaMPE is on for."""

    def __init__(self, config: LampeConfig, rotary: Any) -> None:
        self.config = config.validate()
        self.inv_freq = rotary.inv_freq.detach().to("cpu", torch.float64).numpy()
        self.magnitude = float(getattr(rotary, "attention_scaling", 1.0)) * config.attention_factor
        self.prompt_length = 0

    def lengths(self, n_kv: int, n_q: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Length l of each of the last `n_q` queries of `n_kv` tokens (method: section 3)."""
        if n_kv == n_q:
            self.prompt_length = n_kv
        return self.config.lengths_for(n_kv, self.prompt_length)[n_kv - n_q :]

    def rotate(self, x: torch.Tensor, position: Any) -> torch.Tensor:
        """x [batch, heads, n, d], position [n]; pairs are (i, i + n_rot/2)."""
        angle = np.asarray(position, dtype=np.float64)[:, None] * self.inv_freq
        cos = torch.from_numpy(np.cos(angle) * self.magnitude).to(x)
        sin = torch.from_numpy(np.sin(angle) * self.magnitude).to(x)
        half = cos.shape[1]
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)


def attach(model: PreTrainedModel, config: LampeConfig) -> None:
    """What lampe_gguf.enable_lampe does; raises LampeError for a model that is none of its kind."""
    base = getattr(model, model.base_model_prefix, model)
    rotary = getattr(base, "rotary_emb", None)
    if isinstance(rotary, Unrotated):
        rotary = rotary.original
    if rotary is None or getattr(rotary, "inv_freq", None) is None:
        raise LampeError(
            f"{type(model).__name__} has no rotary embedding of its own that LaMPE could replace"
        )
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise LampeError(
            f"{type(model).__name__} has layers with {', '.join(sorted(kinds))}; LaMPE needs full "
            "attention in all of them"
        )
    state = Lampe(config, rotary)
    base.rotary_emb = Unrotated(rotary)
    for module in model.modules():
        if hasattr(module, "scaling") and hasattr(module, "layer_idx"):
            module.lampe = state
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)
    model.set_attn_implementation(NAME)


enable_lampe = attach  # by the name that this module had it under first


def _mask(*args: Any, attention_mask: torch.Tensor | None = None, **options: Any) -> None:
    """Attention hides the future by itself; of padding it knows nothing."""
    if attention_mask is not None and not bool(attention_mask.all()):
        raise LampeError("LaMPE takes one sequence without padding; give the tokens alone")


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of unrotated queries [b, h, n_q, d] to all keys [b, h_kv, n_kv, d] before them.

    Returns [b, n_q, h, d]. Each pair is scored in one region, and one softmax runs over all.
    """
    state: Lampe = module.lampe
    n_q, n_kv = query.shape[2], key.shape[2]
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    group = query.shape[1] // key.shape[1]
    lengths = state.lengths(n_kv, n_q)
    out = torch.empty_like(query)
    start = 0
    while start < n_q:
        # queries of one length have one plan
        same = int(np.searchsorted(lengths[start:], lengths[start], side="right"))
        stop = start + min(BLOCK, max(1, same))
        first = n_kv - n_q + start
        out[:, :, start:stop] = _block(
            state, state.config.plan(int(lengths[start])), query[:, :, start:stop], key, value,
            first, scale, group,
        )
        start = stop
    return out.transpose(1, 2).contiguous(), None


def _block(
    state: Lampe, plan: Plan, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    first: int, scale: float, group: int,
) -> torch.Tensor:
    """Queries at positions first, first + 1, ... of one plan."""
    i = np.arange(first, first + query.shape[2])
    j = np.arange(i[-1] + 1)
    region = regions(plan, i[:, None], j[None])
    scores = torch.empty(*query.shape[:3], len(j), dtype=query.dtype, device=query.device)
    for each in (LOCAL, MIDDLE, TAIL):
        columns = np.flatnonzero((region == each).any(axis=0))
        if len(columns) == 0:
            continue
        # a region's keys are a run
        run = slice(int(columns[0]), int(columns[-1]) + 1)
        q = state.rotate(query, query_position(plan, each, i))
        k = state.rotate(key[:, :, run], key_position(plan, each, j[run]))
        found = q @ k.repeat_interleave(group, dim=1).transpose(2, 3) * scale
        chosen = torch.from_numpy(region[:, run] == each).to(query.device)
        scores[..., run] = torch.where(chosen, found, scores[..., run])
    hidden = torch.from_numpy(j[None] > i[:, None]).to(query.device)
    exact = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1, dtype=exact)
    seen = value[:, :, : len(j)].repeat_interleave(group, dim=1)
    return weights.to(value.dtype) @ seen
