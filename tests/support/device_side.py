"""What a process that has another device computes; run as a script, the device's library named."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

import numpy as np
from stock_side import all_logits, context_logits, distance


def load_device(library: str) -> None:
    """Register the device, before any model is opened."""
    from llama_cpp._ggml import libggml

    libggml.ggml_backend_load.restype = ctypes.c_void_p
    assert libggml.ggml_backend_load(library.encode()), library


def compare(model: str, layers: list[int], **options: Any) -> list[dict[str, Any]]:
    """For each number of layers on the device: the path, why, and how far the logits are from those
    of the processor's portable path, in standard deviations (root mean square)."""
    from lampe_gguf.backend.llama import LampeLlama

    tokens = [int(t) for t in np.random.default_rng(3).integers(3, 350, 300)]
    batches = [128, 100, 52, *[1] * 20]

    def read(**more: Any) -> tuple[Any, np.ndarray]:
        llm = LampeLlama(model, n_ctx=512, **more, **options)
        return llm, all_logits(llm, tokens, batches)

    _, want = read(n_gpu_layers=0, attention="portable")
    found = [read(n_gpu_layers=n) for n in layers]
    return [{"path": llm.path, "reason": llm.path_reason, "distance": distance(want, got)}
            for llm, got in found]


def readings(model: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A text in batches and token by token, with all layers on devices, once for each case.

    A case holds what LampeLlama takes, and under "settings" what other_device.cpp looks at while it
    computes. Of each: the path, why, how far its logits are from the first one's in standard
    deviations (0: to the bit), whether all are numbers, and what each device computed. A state of
    the first 272 tokens is read by the next case of the same path, which goes on from it: "resumed"
    is how far its logits are from the first one's.
    """
    from lampe_gguf.backend.llama import LampeLlama

    tokens = [int(t) for t in np.random.default_rng(3).integers(3, 350, 300)]
    library = ctypes.CDLL(sys.argv[1])
    library.other_device_computed.restype = ctypes.c_char_p
    library.other_device_computed.argtypes = [ctypes.c_size_t]
    first: Any = None
    state: Any = None
    found = []
    for case in cases:
        settings = case.pop("settings", {})
        os.environ.update(settings)
        for i in range(int(os.environ["OTHER_DEVICES"])):
            library.other_device_computed(i)
        llm = LampeLlama(model, n_ctx=512, n_gpu_layers=99, **case)
        resumed = None
        if state is not None and llm.path == found[-1]["path"]:  # another's is laid out otherwise
            llm.load_state(state)
            resumed = all_logits(llm, tokens[272:], [8, *[1] * 20])
            llm.reset()
        got = all_logits(llm, tokens[:272], [272])
        state = llm.save_state()
        got = np.concatenate([got, all_logits(llm, tokens[272:], [8, *[1] * 20])])
        first = got if first is None else first
        found.append({
            "path": llm.path, "reason": llm.path_reason, "numbers": bool(np.isfinite(got).all()),
            "distance": 0.0 if (got == first).all() else distance(first, got),
            "resumed": None if resumed is None else distance(first[272:], resumed),
            "devices": [library.other_device_computed(i).decode().split()
                        for i in range(int(os.environ["OTHER_DEVICES"]))],
        })
        for name in settings:
            del os.environ[name]
    return found


def switched_off(
    model: str, plain: str, flash_attn: int, refuses: str = "", **options: Any
) -> dict[str, Any]:
    """A converted file switched off beside the file before it was converted, all on the device,
    which refuses one operator more."""
    from lampe_gguf.backend import api as backend
    from lampe_gguf.backend.llama import LampeLlama

    os.environ["OTHER_DEVICE_REFUSES"] = refuses
    tokens = [int(t) for t in np.random.default_rng(3).integers(3, 350, 300)]
    seen = []

    def switch(context: Any) -> None:
        seen.append(backend.get_path(context))
        backend.set_enabled(context, False)

    ours, theirs = (
        LampeLlama(path, n_ctx=256, n_gpu_layers=99, **options) for path in (model, plain))
    got, state = context_logits(ours.model, tokens, flash_attn, switch, n_ctx=512)
    want, other = context_logits(theirs.model, tokens, flash_attn, n_ctx=512)
    return {"before": seen[0], "same_logits": bool((got == want).all()),
            "same_state": state == other}


def refusal(model: str, **options: Any) -> str:
    """What a context says that cannot be made."""
    from lampe_gguf.backend.llama import LampeLlama
    from lampe_gguf.errors import LampeError

    try:
        LampeLlama(model, n_ctx=512, **options)
    except LampeError as error:
        return str(error)
    return ""


def refusals(model: str, cases: list[dict[str, Any]]) -> list[str]:
    """What each case says that cannot be; as of readings(), its settings hold from then on."""
    found = []
    for case in cases:
        os.environ.update(case.pop("settings", {}))
        found.append(refusal(model, n_gpu_layers=99, **case))
    return found


def doctor() -> dict[str, Any]:
    """What `lampe-gguf doctor` finds."""
    import dataclasses

    from lampe_gguf.backend.doctor import examine

    return dataclasses.asdict(examine())


if __name__ == "__main__":
    load_device(sys.argv[1])
    print(json.dumps(globals()[sys.argv[2]](**json.loads(sys.argv[3]))))
