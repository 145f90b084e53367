"""Mutated metadata through loading and a few tokens: whatever a file says, no process dies of it.

The model's shape is left alone: what upstream's own loader makes of a wrong one is upstream's. So
are two assertions of upstream's that end the process: of an alignment below 32, and of a
rope.scaling.type that it does not know.
"""

from __future__ import annotations

import random
import select
import subprocess
import sys
from pathlib import Path

from .parts import ARRAY, SCALARS, STRING, Pair, Parts, read_parts, text, value

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "support")]

OTHERS = ("general.name", "general.type", "general.basename")
OF_MODEL = ("context_length", "rope.freq_base", "rope.scaling.factor",
            "rope.scaling.original_context_length", "rope.scaling.finetuned",
            "rope.scaling.attn_factor", "rope.scaling.yarn_log_multiplier",
            "attention.causal", "attention.sliding_window", "attention.temperature_scale")
SCALING = b"llama.rope.scaling.type"
SECONDS = 60  # that one file may take


class Metadata:
    """`loaded` of the `tried` files were opened and read with, by the program `side`."""

    side = Path(__file__).with_name("metadata_side.py")

    def __init__(self, folder: Path) -> None:
        from conftest import tiny_config  # type: ignore[import-not-found]
        from tiny_model import make_tiny_model  # type: ignore[import-not-found]

        from lampe_gguf.method.fields import FIELDS

        self.folder = folder
        self.found = folder
        self.base = read_parts(make_tiny_model(
            folder / "base.gguf", lampe=tiny_config(), window=32, n_layer=1, n_embd=64, n_head=1,
            n_head_kv=1, n_ff=32))
        prefix = "llama.rope.scaling.lampe."
        names = [*(field.name for field in FIELDS), "padding", "unknown"]
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
        pairs = {pair.key: pair for pair in self.base.pairs}
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
            pairs[key] = Pair(key, kind, value(rng, kind))
        return Parts(list(pairs.values()), self.base.tensors, self.base.data)

    def close(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()
            self.worker = None
