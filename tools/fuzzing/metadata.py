"""Mutated metadata through loading and a few tokens: whatever a file says, no process dies of it.

The model's shape is left alone: what upstream's own loader makes of a wrong one is upstream's. So
are two assertions of upstream's that end the process: of an alignment below 32, and of a
rope.scaling.type that it does not know.
"""

from __future__ import annotations

import random
import select
import struct
import subprocess
import sys
from pathlib import Path

from .parts import ARRAY, SCALARS, STRING, Pair, Parts, read_parts, text, value

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

OTHERS = ("general.name", "general.type", "general.basename")
OF_MODEL = ("context_length", "rope.freq_base", "rope.scaling.factor",
            "rope.scaling.original_context_length", "rope.scaling.finetuned",
            "rope.scaling.attn_factor", "rope.scaling.yarn_log_multiplier",
            "attention.causal", "attention.sliding_window", "attention.temperature_scale")
SCALING = b"llama.rope.scaling.type"
N_LAYER = 2
SECONDS = 60  # that one file may take


class Metadata:
    """`loaded` of the `tried` files were opened and read with, by the program `side`."""

    side = Path(__file__).with_name("metadata_side.py")

    def __init__(self, folder: Path) -> None:
        from conftest import tiny_config  # type: ignore[import-not-found]
        from tiny_model import make_tiny_model  # type: ignore[import-not-found]

        from lampe_gguf.method.fields import FIELDS, LAYER_KEYS
        from lampe_gguf.method.layers import LayerMap

        self.folder = folder
        self.found = folder
        own = LayerMap((1,), 3, 1, 9.0)
        # without maps of single layers, and with one
        self.bases = [read_parts(make_tiny_model(
            folder / "base.gguf", lampe=tiny_config(layer_maps=maps), window=32, n_layer=N_LAYER,
            n_embd=64, n_head=1, n_head_kv=1, n_ff=32)) for maps in ((), (own,))]
        prefix = "llama.rope.scaling.lampe."
        names = [*(field.name for field in FIELDS), *LAYER_KEYS, "padding", "unknown"]
        self.keys = [*(prefix + name for name in names),
                     *(f"llama.{name}" for name in OF_MODEL), *OTHERS]
        self.worker: subprocess.Popen[str] | None = None
        self.tried = self.loaded = 0

    def try_one(self, rng: random.Random) -> str | None:
        self.tried += 1
        path = self.folder / "in.gguf"
        path.write_bytes(self._mutated(rng).encode())
        if self.worker is None:
            self.worker = subprocess.Popen(
                [sys.executable, str(self.side)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        worker = self.worker
        assert worker.stdin is not None and worker.stdout is not None
        print(path, rng.choice(("LampeLlama", "auto", "False", "Llama")), file=worker.stdin,
              flush=True)
        ready, _, _ = select.select([worker.stdout], [], [], SECONDS)
        answer = worker.stdout.readline() if ready else ""
        self.loaded += answer == "loaded\n"
        if answer in ("loaded\n", "refused\n"):
            return None
        if answer:
            return answer.strip()
        worker.kill()
        self.worker = None
        code = worker.wait()
        return f"no answer in {SECONDS} s" if not ready else f"the process ended with {code}"

    def _mutated(self, rng: random.Random) -> Parts:
        base = rng.choice(self.bases)
        pairs = {pair.key: pair for pair in base.pairs}
        if rng.random() < 0.2:
            scaling = text(rng.choice((b"none", b"linear", b"yarn", b"longrope")))
            pairs[SCALING] = Pair(SCALING, STRING, scaling)
        for _ in range(rng.choice((1, 1, 2, 3))):
            key = rng.choice(self.keys).encode()
            old = pairs.get(key)
            if old is not None and rng.random() < 0.1:
                del pairs[key]
                continue
            kind = rng.choice((*SCALARS, STRING, ARRAY))
            if old is not None and rng.random() < 0.7:
                kind = old.kind
            data = value(rng, kind)
            if b"layer_map" in key and kind == ARRAY and rng.random() < 0.7:
                data = _of_layers(rng, key)
            pairs[key] = Pair(key, kind, data)
        return Parts(list(pairs.values()), base.tensors, base.data)

    def close(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()
            self.worker = None


def _of_layers(rng: random.Random, key: bytes) -> bytes:
    """An array as a map of layers has it, with numbers that are nearly right."""
    count = rng.choice((0, 1, N_LAYER, N_LAYER, 3, 4, 5))
    if key.endswith(b"max_mapping_length"):
        values = [rng.choice((4.0, 9.0, 20.5, 32.0, 33.0, float("nan"))) for _ in range(count)]
        return struct.pack(f"<IQ{count}d", 12, count, *values)
    numbers = [rng.choice((0, 1, 1, 2, 3, 31, 1 << 31)) for _ in range(count)]
    return struct.pack(f"<IQ{count}I", 4, count, *numbers)
