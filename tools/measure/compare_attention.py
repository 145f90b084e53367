"""Attention of a GGUF model by llama.cpp against that of the same weights in transformers.

    .venv/bin/python tools/measure/compare_attention.py MODEL.gguf --text FILE [--length 256]

Needs torch and transformers (pip install lampe-gguf[hf]), which the program itself does not. There
the weights are dequantised to f32 and attention is computed by its plain "eager" code, with plain
RoPE; here the quantised model runs, with activations and cache rounded as it always does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import COUNT, run, tool

from lampe_gguf.attention.probe import Probe
from lampe_gguf.attention.stats import entropy
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.conversation.documents import read_document


def by_transformers(path: Path, tokens: list[int]) -> np.ndarray:
    """Attention weights in f32: [n_layer, n_head, n_tokens, n_tokens]."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, attn_implementation="eager",
        local_files_only=True,
    )
    with torch.no_grad():
        found = model(torch.tensor([tokens]), output_attentions=True)
    return np.stack([layer[0].float().numpy() for layer in found.attentions])


def by_llama_cpp(path: Path, tokens: list[int], n_before: int) -> np.ndarray:
    """The same from the running model, whose fused attention reads the first `n_before` tokens."""
    rows: dict[int, dict[int, np.ndarray]] = {}

    def keep(layer: int, query: int, weights: Any) -> None:
        padded = np.zeros((len(weights), len(tokens)), dtype=np.float32)
        padded[:, : query + 1] = weights
        rows.setdefault(layer, {})[query] = padded

    llm = LampeLlama(path, lampe=False, n_ctx=len(tokens))
    probe = Probe(llm, keep)
    llm.eval(tokens[:n_before])
    probe.take_over(llm, len(tokens))
    probe.read(tokens[n_before:], range(n_before, len(tokens)))
    probe.close()
    llm.close()
    return np.stack([
        np.stack([rows[layer][query] for query in sorted(rows[layer])], axis=1)
        for layer in sorted(rows)
    ])


@tool(__doc__)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--text", required=True)
@click.option("--length", type=COUNT, default=256)
def main(model: Path, text: str, length: int) -> None:
    """Compare, and print a line for each layer."""
    llm = LampeLlama(model, lampe=False, n_ctx=length)
    tokens = llm.tokenize(read_document(text).text.encode())[:length]
    llm.close()
    half = len(tokens) // 2
    here = by_llama_cpp(model, tokens, half)
    there = by_transformers(model, tokens)[:, :, half:]
    h, t = entropy(here), entropy(there)
    print(f"{len(tokens)} tokens, the last {len(tokens) - half} as queries; [n_layer, n_head, "
          f"n_query, n_key] = {list(here.shape)}")
    print("layer   entropy here   there   difference of the means   largest of one weight")
    for layer in range(len(here)):
        print(f"{layer:>5} {h[layer].mean():>14.4f} {t[layer].mean():>7.4f} "
              f"{h[layer].mean() - t[layer].mean():>25.4f} "
              f"{abs(here[layer] - there[layer]).max():>23.4f}")
    print(f"all   {h.mean():>14.4f} {t.mean():>7.4f} {h.mean() - t.mean():>25.4f}; one head's mean "
          f"entropy differs by {abs(h.mean(axis=2) - t.mean(axis=2)).max():.4f} at most, one "
          f"row's by {abs(h - t).mean():.4f} on average")


if __name__ == "__main__":
    run(main)
