"""One side of a comparison of speed, in a process of its own: reads, writes, and reports.

Run as `python -m lampe_gguf.bench.side JSON`; prints one JSON object a line: {"work": tokens of
prefill done} after each batch, {"length", "prefill_seconds", "decode_seconds"} after each length,
at last {"peak_rss_mb", "version", "path"}; or {"error"}. The side "stock" imports nothing of the
patched build, so that PYTHONPATH may lead to another one.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

from ..errors import LampeError

WARM_UP = 64  # tokens read before the clock starts: the weights come off the disk


def open_side(side: str, model: str, **options: Any) -> Any:
    """A llama_cpp.Llama: "lampe" and "off" of the patched build, "stock" of whichever is found."""
    if side == "stock":
        from llama_cpp import Llama

        return Llama(model, verbose=False, **options)
    from ..backend.llama import LampeLlama
    from ..model.choose import read_file

    file = read_file(model)
    config = file.config
    # the tokens written at the greatest length may go beyond what the file supports
    longest = max(config.context_length, options["n_ctx"])
    lampe: Any = False if side == "off" else dataclasses.replace(config, context_length=longest)
    return LampeLlama(file, lampe=lampe, **options)


def read(llm: Any, tokens: list[int]) -> None:
    """Prefill, one batch at a time."""
    for start in range(0, len(tokens), llm.n_batch):
        batch = tokens[start : start + llm.n_batch]
        llm.eval(batch)
        report(work=len(batch))


def report(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def peak_rss() -> float | None:
    """The largest resident memory of this process so far, MB; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1e6 if sys.platform == "darwin" else 1e3
    )


def run(
    side: str, model: str, lengths: list[int], decode: int, threads: int, portable: bool,
    flash_attn: bool, rpc_servers: Sequence[str] = (),
) -> None:
    """Read up to each length in turn (ascending) and write `decode` tokens there.

    portable concerns the side "lampe" alone, flash_attn the others: LaMPE does not depend on it.
    """
    import llama_cpp

    n_ctx = -(-(lengths[-1] + decode + 1) // 256) * 256
    chosen: dict[str, Any] = {}
    if portable and side == "lampe":
        chosen["attention"] = "portable"
    if rpc_servers:
        chosen["rpc_servers"] = rpc_servers
    llm = open_side(
        side, model, n_ctx=n_ctx, n_batch=512, n_threads=threads, n_threads_batch=threads,
        flash_attn=flash_attn, **chosen,
    )
    numbers = random.Random(0)
    # speed does not depend on what is read
    tokens = [numbers.randrange(llm.n_vocab()) for _ in range(lengths[-1] + decode + 1)]
    llm.eval(tokens[:WARM_UP])
    llm.eval(tokens[:1])
    llm.reset()
    prefill = 0.0
    for length in lengths:
        start = time.perf_counter()
        read(llm, tokens[llm.n_tokens : length])
        prefill += time.perf_counter() - start
        llm.eval(tokens[length : length + 1])
        start = time.perf_counter()
        for token in tokens[length + 1 : length + 1 + decode]:
            llm.eval([token])
        seconds = time.perf_counter() - start
        llm.n_tokens = length  # what was written is dropped from the cache with the next batch
        report(length=length, prefill_seconds=prefill, decode_seconds=seconds)
    report(
        peak_rss_mb=peak_rss(),
        version=llama_cpp.__version__,
        path="stock" if side == "stock" else llm.path,
    )


if __name__ == "__main__":
    try:
        run(**json.loads(sys.argv[1]))
    except (LampeError, RuntimeError, ValueError) as problem:  # the latter two are llama_cpp's
        report(error=str(problem))
