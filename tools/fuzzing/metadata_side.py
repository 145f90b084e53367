"""The process that opens what metadata.py makes: a path and a way a line, one answer a line."""

from __future__ import annotations

import os
import sys
from typing import Any

MEMORY = 8 << 30  # bytes of addresses: a file that asks for more is refused, or found


def use(path: str, way: str) -> None:
    """Open a model and read a few tokens, past its window."""
    from llama_cpp import Llama

    from lampe_gguf import LampeLlama

    if way == "Llama":
        llm: Any = Llama(path, n_ctx=128, n_threads=1, verbose=False)
    else:
        lampe: Any = {"LampeLlama": None, "auto": "auto", "False": False}[way]
        llm = LampeLlama(path, lampe=lampe, n_ctx=128, n_threads=1)
    try:
        llm.eval([1 + token % 300 for token in range(50)])
        if way != "Llama":
            llm.plan()
    finally:
        llm.close()


def main() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # what C code and Python print is not the answer
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from lampe_gguf import LampeError

    for line in sys.stdin:
        path, _, way = line.rstrip("\n").rpartition(" ")
        try:
            use(path, way)
            answer = "loaded"
        except (LampeError, ValueError, RuntimeError, MemoryError, OSError):
            answer = "refused"
        except Exception as error:
            answer = f"{way}: {type(error).__name__}: {error}".replace("\n", " ")
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
