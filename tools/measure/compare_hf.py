#!/usr/bin/env python3
"""Logits of the patched llama.cpp beside those of transformers, from the weights of one GGUF.

    .venv/bin/python tools/measure/compare_hf.py MODEL.gguf --text FILE [--length N] [--json]

transformers (extra `hf`) dequantises the weights and computes in f32 with
lampe_gguf.huggingface.attention, which shares no code with the backend; llama.cpp multiplies
quantised weights with quantised activations.
So that the difference has a measure, plain RoPE at the first length is compared as well: there both
are as upstream made them, and differ by the quantisation alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import COUNT, run, tool

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import read_tokens
from lampe_gguf.errors import how_to_add
from lampe_gguf.method.config import LampeConfig
from lampe_gguf.model.choose import file_config
from lampe_gguf.model.presets import FLAT_OFFSET, default_config

Logits = npt.NDArray[np.float64]


def backend_logits(
    model: Path, config: LampeConfig | None, tokens: list[int], tail: int
) -> Logits:
    """Logits of the last `tail` tokens, [tail, n_vocab]."""
    llm = LampeLlama(model, lampe=False if config is None else config, n_ctx=len(tokens))
    try:
        llm.eval(tokens[:-tail])
        found = [logits.astype(np.float64) for _, logits in llm.read_logits(tokens[-tail:])]
        return np.concatenate(found)
    finally:
        llm.close()


def transformers_logits(
    model: Any, config: LampeConfig | None, tokens: list[int], tail: int
) -> Logits:
    """The same from transformers; plain RoPE before LaMPE was switched on."""
    import torch

    from lampe_gguf.huggingface.attention import enable_lampe

    if config is not None:
        enable_lampe(model, config)
    with torch.no_grad():
        found = model(torch.tensor([tokens]), use_cache=False, logits_to_keep=tail)
    return np.asarray(found.logits[0].numpy(), dtype=np.float64)


def compare(a: Logits, b: Logits) -> dict[str, float]:
    """Differences of logits (their mean taken off each row), and of what they predict."""

    def log_softmax(x: Logits) -> Logits:
        x = x - x.max(axis=1, keepdims=True)
        return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)))

    p, q = log_softmax(a), log_softmax(b)
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    return {
        "rms": float(np.sqrt(np.square(a - b).mean())),
        "relative": float(np.sqrt(np.square(a - b).mean() / np.square(b).mean())),
        "kl": float((np.exp(q) * (q - p)).sum(axis=1).mean()),
        "same_top": float((a.argmax(axis=1) == b.argmax(axis=1)).mean()),
    }


@tool(__doc__)
@click.argument("path", metavar="MODEL", type=click.Path(path_type=Path))
@click.option("--text", type=click.Path(path_type=Path), required=True)
@click.option("--length", "lengths", multiple=True, type=COUNT, default=(2048, 12288),
              show_default=True)
@click.option("--tail", type=COUNT, default=256, help="Tokens whose logits are compared.")
@click.option("--json", "as_json", is_flag=True)
def main(path: Path, text: Path, lengths: tuple[int, ...], tail: int, as_json: bool) -> int:
    """Compare, and print a line for each map and length."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        print(f"error: transformers is not installed; {how_to_add('hf')}",
              file=sys.stderr)
        return 1

    window = file_config(path)[1].window
    default = default_config(window)
    # one that compresses inside the window too: the default is plain RoPE there
    small = dataclasses.replace(default, local_window=256, tail_window=64, offset=FLAT_OFFSET,
                                max_mapping_length=1024.0)
    tokenizer = LampeLlama(path, lampe=False, n_ctx=256)
    tokens = read_tokens(tokenizer, text.read_text(encoding="utf-8"), max(lengths))
    tokenizer.close()
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype="float32"
    ).eval()
    rows = []
    cases: list[tuple[str, LampeConfig | None, int]] = [("plain RoPE", None, lengths[0])]
    for length in lengths:
        cases += [("LaMPE, default", default, length), ("LaMPE, L = 1,024", small, length)]
    for name, config, length in cases:
        start = time.monotonic()
        theirs = transformers_logits(model, config, tokens[:length], tail)
        ours = backend_logits(path, config, tokens[:length], tail)
        row = {"map": name, "length": length, **compare(ours, theirs),
               "seconds": time.monotonic() - start}
        rows.append(row)
        if not as_json:
            print(f"{name:18} {length:6,} tokens: logits differ by {row['rms']:.3f} (root mean "
                  f"square, {row['relative']:.2%}), divergence {row['kl']:.5f} nats, same first "
                  f"choice {row['same_top']:.1%}", flush=True)
    if as_json:
        print(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    run(main)
