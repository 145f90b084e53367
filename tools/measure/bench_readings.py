"""Time a second question about a document against the first, and the file in between.

    python tools/measure/bench_readings.py [--tokens 16384] [--load-tokens 4096] [--json]

The first `ask` reads the document and keeps that, the second loads it: seconds to the first token
of the answer and of the whole command, the median of --rounds second ones (warm), and of as many
with the file out of the page cache (cold). For caches in f16, q8_0 and q4_0: bytes a token, and how
fast a reading of --load-tokens is loaded, checked as always, beside a plain read of the same file.
Readings are kept in a folder of their own, on the disk of --folder.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arguments import COUNT, run, tool

from lampe_gguf.cli.console import say
from lampe_gguf.cli.progress import progress_line
from lampe_gguf.errors import LampeError
from lampe_gguf.shown import size

CACHES = {"f16": 1, "q8_0": 8, "q4_0": 2}
BLOCK = 1 << 23
PROGRAM = [sys.executable, "-m", "lampe_gguf.cli.main"]


def write_text(path: Path, model: Path, n_tokens: int) -> None:
    """A text of about so many tokens, a little less: this project's own pages, over and over."""
    from lampe_gguf.backend.vocabulary import vocabulary

    root = Path(__file__).resolve().parents[2]
    page = "\n".join((root / name).read_text(encoding="utf-8")
                     for name in ("patches/README.md", "tools/README.md"))
    with vocabulary(model) as vocab:
        text = page
        while (count := count_tokens(vocab, text)) < n_tokens:
            text += page
        for _ in range(4):  # some parts have more tokens than others
            text = text[: int(len(text) * (n_tokens - 64) / count)]
            count = count_tokens(vocab, text)
            if count <= n_tokens - 64:
                break
    path.write_text(text, encoding="utf-8")


def count_tokens(vocab: Any, text: str) -> int:
    """Of a text, as a model's vocabulary has it."""
    tokens: list[int] = vocab.tokenize(text.encode(), False, False)
    return len(tokens)


def cold(path: Path) -> None:
    """Take a file out of the page cache, where the system lets us."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def ask(model: Path, book: Path, question: str, cache: Path, options: list[str]) -> dict[str, Any]:
    """One question in a process of its own, one token long; its figures."""
    start = time.perf_counter()
    done = subprocess.run(
        [*PROGRAM, "ask", str(model), question, "--doc", str(book), "--max-tokens", "1", "--json",
         *options],
        capture_output=True, text=True,
        env={**os.environ, "LAMPE_GGUF_CACHE": str(cache), "LAMPE_GGUF_READINGS_MAX": "1000G"},
    )
    if done.returncode:
        raise LampeError(done.stderr.strip().splitlines()[-1])
    said = json.loads(done.stdout)
    waited = said["seconds_loading"] + said["seconds_keeping"] + said["seconds_reading"]
    return {"first_token": waited, "command": time.perf_counter() - start,
            "tokens": said["prompt_tokens"], "kept_tokens": said["kept_tokens"],
            "loading": said["seconds_loading"], "keeping": said["seconds_keeping"]}


def asked(
    model: Path, n_tokens: int, rounds: int, folder: Path, options: list[str]
) -> dict[str, Any]:
    """The first question, and the second with a warm and with a cold page cache."""
    book = folder / "book.txt"
    write_text(book, model, n_tokens)
    say(f"reading about {n_tokens:,} tokens, the first time")
    first = ask(model, book, "Who wrote it?", folder, options)
    [state] = (folder / "readings").glob("*.state")
    seconds: dict[str, Any] = {}
    for name in ("warm", "cold"):
        found = []
        for _ in range(rounds):
            if name == "cold":
                cold(state)
            found.append(ask(model, book, "What is it about?", folder, options))
        if min(each["kept_tokens"] for each in found) == 0:
            raise LampeError("the second question found no kept reading")
        seconds[name] = {key: statistics.median(each[key] for each in found) for key in found[0]}
    return {"first": first, **seconds, "bytes": state.stat().st_size,
            "sooner": first["first_token"] / seconds["warm"]["first_token"],
            "sooner_cold": first["first_token"] / seconds["cold"]["first_token"]}


def rate(path: Path, read: Callable[[], object], rounds: int, is_cold: bool) -> float:
    """GB a second of `read`, the median."""
    found = []
    for _ in range(rounds):
        if is_cold:
            cold(path)
        start = time.perf_counter()
        read()
        found.append(path.stat().st_size / 1e9 / (time.perf_counter() - start))
    return statistics.median(found)


def plain_read(path: Path) -> None:
    """What the disk itself gives, without a look at it."""
    buffer = memoryview(bytearray(BLOCK))
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def loaded(model: Path, n_tokens: int, rounds: int, folder: Path) -> dict[str, Any]:
    """By type of the cache: bytes a token, and GB a second of loading and of plain reading."""
    from lampe_gguf.backend.llama import LampeLlama
    from lampe_gguf.readings.keeping import Readings

    found: dict[str, Any] = {}
    tokens = [5 + i % 97 for i in range(n_tokens)]
    for name, kind in CACHES.items():
        kept = Readings(folder / name, 10**15, least=1, on_note=say)
        with progress_line(f"reading, cache of {name}", "tokens") as on_progress, LampeLlama(
            model, lampe="auto", n_ctx=n_tokens, type_k=kind, type_v=kind, progress=on_progress,
        ) as llm:
            llm.eval(tokens)
            start = time.perf_counter()
            entry = kept.keep(llm)
            if entry is None:
                raise LampeError(f"nothing was kept of the cache of {name}")
            keeping = time.perf_counter() - start
            path = kept.store.path(entry)

            def load(llm: LampeLlama = llm, kept: Readings = kept) -> None:
                llm.reset()
                if kept.load(llm, tokens) != n_tokens:
                    raise LampeError("what was kept was not loaded")

            figures = {"bytes_a_token": entry.bytes / n_tokens,
                       "keeping_gb_s": entry.bytes / 1e9 / keeping}
            for state, is_cold in (("warm", False), ("cold", True)):
                figures[f"loading_{state}_gb_s"] = rate(path, load, rounds, is_cold)
                figures[f"plain_{state}_gb_s"] = rate(
                    path, partial(plain_read, path), rounds, is_cold)
            found[name] = figures
            path.unlink()
    return found


@tool(__doc__)
@click.option("--tokens", type=COUNT, default=16384)
@click.option("--load-tokens", type=COUNT, default=4096,
              help="Of the readings that are loaded with each type of cache.")
@click.option("--model", default="smollm2-135m")
@click.option("--rounds", type=COUNT, default=3)
@click.option("--threads", type=COUNT)
@click.option("--folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True)
def main(
    tokens: int, load_tokens: int, model: str, rounds: int, threads: int | None,
    folder: Path | None, as_json: bool,
) -> None:
    from measure.models import found

    path = found(model)
    options = ["--threads", str(threads)] if threads else []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        result = {"asking": asked(path, tokens, rounds, place, options),
                  "loading": loaded(path, load_tokens, rounds, place)}
    if as_json:
        print(json.dumps(result, indent=2))
        return
    asking = result["asking"]
    print(f"{asking['first']['tokens']:,} tokens, {size(asking['bytes'])}; keeping took "
          f"{asking['first']['keeping']:.1f} s")
    for label in ("first", "warm", "cold"):
        each = asking[label]
        print(f"{label:>5}: first token after {each['first_token']:.2f} s, whole command "
              f"{each['command']:.2f} s")
    print(f"first token {asking['sooner']:.0f} times sooner (cold {asking['sooner_cold']:.0f})")
    for kind, each in result["loading"].items():
        print(f"{kind:>5}: {each['bytes_a_token']:,.0f} bytes a token; loading "
              f"{each['loading_warm_gb_s']:.2f} GB/s (cold {each['loading_cold_gb_s']:.2f}), plain "
              f"read {each['plain_warm_gb_s']:.2f} (cold {each['plain_cold_gb_s']:.2f}), keeping "
              f"{each['keeping_gb_s']:.2f}")


if __name__ == "__main__":
    run(main)
