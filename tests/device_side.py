"""What a process that has another device computes; run as a script, the device's library named."""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

import numpy as np
from stock_side import all_logits, distance


def load_device(library: str) -> None:
    """Register the device, before any model is opened."""
    from llama_cpp._ggml import libggml

    libggml.ggml_backend_load.restype = ctypes.c_void_p
    assert libggml.ggml_backend_load(library.encode()), library


def compare(model: str, layers: list[int], **options: Any) -> list[dict[str, Any]]:
    """For each number of layers on the device: the path, why, and how far the logits are from those
    of the processor's portable path, in standard deviations (root mean square)."""
    from lampe_gguf.runtime import LampeLlama

    tokens = [int(t) for t in np.random.default_rng(3).integers(3, 350, 300)]
    batches = [128, 100, 52, *[1] * 20]

    def read(flash_attn: bool, n_gpu_layers: int) -> tuple[Any, np.ndarray]:
        llm = LampeLlama(model, n_ctx=512, n_gpu_layers=n_gpu_layers, flash_attn=flash_attn,
                         **options)
        return llm, all_logits(llm, tokens, batches)

    _, want = read(False, 0)
    found = [read(True, n) for n in layers]
    return [{"path": llm.path, "reason": llm.path_reason, "distance": distance(want, got)}
            for llm, got in found]


def refusal(model: str, **options: Any) -> str:
    """What a context says that cannot be made."""
    from lampe_gguf.errors import LampeError
    from lampe_gguf.runtime import LampeLlama

    try:
        LampeLlama(model, n_ctx=512, **options)
    except LampeError as error:
        return str(error)
    return ""


def doctor() -> dict[str, Any]:
    """What `lampe-gguf doctor` finds."""
    import dataclasses

    from lampe_gguf.doctor import examine

    return dataclasses.asdict(examine())


if __name__ == "__main__":
    load_device(sys.argv[1])
    print(json.dumps(globals()[sys.argv[2]](**json.loads(sys.argv[3]))))
