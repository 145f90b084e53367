"""SmolLM2 with all of its layers on a device, against the processor; see on_device.py."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import _logger

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo import long_text, model_path

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import read_tokens
from lampe_gguf.method.config import LampeConfig
from lampe_gguf.model.choose import file_config

WRITTEN = 16  # tokens


@contextmanager
def log_lines() -> Iterator[list[str]]:
    """What llama.cpp says meanwhile."""
    lines: list[str] = []

    def keep(_: int, text: bytes, __: Any) -> None:
        lines.append(text.decode("utf-8", "replace"))

    callback = llama_cpp.llama_log_callback(keep)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        yield lines
    finally:
        llama_cpp.llama_log_set(_logger.llama_log_callback, ctypes.c_void_p(0))


def run(name: str, config: LampeConfig | None, n_tokens: int, **options: Any) -> np.ndarray:
    """Read and write; print what was seen. Returns the logits of the tokens: [n, n_vocab]."""
    n_ctx = -(-(n_tokens + WRITTEN) // 256) * 256
    llm = LampeLlama(model_path(), lampe=config, n_ctx=n_ctx, verbose=False, **options)
    tokens = read_tokens(llm, long_text(), n_tokens + WRITTEN)
    llm.eval(tokens[:64])
    llm.reset()
    rows = []
    start = time.perf_counter()
    for _, logits in llm.read_logits(tokens[:n_tokens]):
        rows.append(logits.copy())  # [batch, n_vocab]
    read = time.perf_counter() - start
    start = time.perf_counter()
    for token in tokens[n_tokens:]:
        llm.eval([token])
    written = time.perf_counter() - start
    reason = f" ({llm.path_reason})" if llm.path_reason else ""
    print(f"{name:<22} {llm.path}{reason}: reads {n_tokens / read:.1f} and writes "
          f"{WRITTEN / written:.1f} tokens/s", flush=True)
    llm.close()
    return np.concatenate(rows)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference, in standard deviations of the logits."""
    return float(np.sqrt(((a - b) ** 2).mean()) / a.std())


def main() -> int:
    """Compare; 1 where the device is further off than the processor's own paths allow."""
    n_tokens = json.loads(sys.argv[1])["tokens"]
    # a map that compresses what is read here
    config = dataclasses.replace(
        file_config(model_path())[1], local_window=256, tail_window=32, max_mapping_length=512.0)
    with log_lines() as lines:
        got = run("device", config, n_tokens, n_gpu_layers=99)
    for wanted in (r"using device .*", r".*KV buffer size.*", r".*compute buffer size = .*",
                   r"graph.*splits = [^,]*", r".*offloaded \d+/\d+ layers.*"):
        for line in lines:
            if found := re.search(wanted, line):
                print("   " + found[0].strip())
    plain = run("processor", config, n_tokens, attention="portable", op_offload=False)
    fused = run("processor, fused", config, n_tokens, op_offload=False)
    noise, away = distance(fused, plain), distance(fused, got)
    # what the device's own products cost, without LaMPE
    rope = {where: run(f"{where}, LaMPE off", None, n_tokens, n_gpu_layers=layers,
                       flash_attn=False, op_offload=False)
            for where, layers in (("device", 99), ("processor", 0))}
    off = distance(rope["processor"], rope["device"])
    print(f"logits from the processor's fused path: portable {noise:.5f}, device {away:.5f} "
          f"standard deviations; with LaMPE off, device from processor {off:.5f}")
    return 0 if away < max(2 * noise, 1.5 * off, 0.01) else 1


if __name__ == "__main__":
    sys.exit(main())
