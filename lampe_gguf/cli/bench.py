"""lampe-gguf bench"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from ..shown import json_text, shown
from .console import out
from .options import PICTURE, RPC, THREAD_COUNT, Listed
from .spelling import Respelled

HELP = """Time MODEL reading and writing, LaMPE against stock attention.

Each side runs in its own process; they take turns, and the medians are compared. Stock is this
build with LaMPE off (upstream's own graph), or with --stock upstream's own build.

\b
Examples:
  lampe-gguf bench model.gguf
  lampe-gguf bench model.gguf --lengths 4096,16384 --plot speed.png
  lampe-gguf bench model.gguf --stock "$(python3 tools/backend.py build --stock | tail -1)"
"""


@click.command(name="bench", help=HELP, cls=Respelled, old={"--length": "--lengths"})
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--lengths", default="512,2048,8192", show_default=True,
              type=Listed(click.IntRange(2)), metavar="TOKENS,...", help="Tokens in the context.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1),
              help="Runs of either side.")
@click.option("--decode", default=32, show_default=True, type=click.IntRange(1),
              help="Tokens to write at each length.")
@click.option("--threads", type=THREAD_COUNT, help="Processor threads.  [default: all]")
@click.option("--stock", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Upstream's own llama-cpp-python, as a folder for PYTHONPATH.")
@RPC
@click.option("--portable", is_flag=True, help="LaMPE with attention from stock operations.")
@click.option("--flash-attn/--no-flash-attn", default=True, show_default=True,
              help="Stock with or without flash attention.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--plot", type=PICTURE, help="Draw the speeds into a PNG.")
def command(
    model: Path, lengths: tuple[int, ...], rounds: int, decode: int, threads: int | None,
    stock: Path | None, rpc: tuple[str, ...], portable: bool, flash_attn: bool, as_json: bool,
    plot: Path | None,
) -> None:
    from ..bench.compare import compare
    from .progress import Progress

    with Progress("measuring", 2 * rounds * max(lengths), "tokens") as bar:
        found = compare(
            model, lengths, rounds=rounds, decode=decode, threads=threads, stock=stock,
            portable=portable, flash_attn=flash_attn, rpc_servers=rpc, on_work=bar.advance,
        )
    if as_json:
        out(json_text(dataclasses.asdict(found)))
    else:
        out(f"LaMPE ({found.paths[0]}, {shown(found.versions[0])}) against {found.stock} "
            f"({shown(found.versions[1])})")
        out(f"{found.rounds} rounds in turn, {found.threads} threads; medians in tokens/s, "
            "ratio above 1 where LaMPE is faster")
        out(f"{'length':>8}  {'what':<8}{'LaMPE':>9}{'stock':>9}{'ratio':>7}  least to most")
        for at in found.comparisons:
            for what, speed in (("prefill", at.prefill), ("decode", at.decode)):
                least, most = speed.spread
                out(f"{at.length:>8,}  {what:<8}{speed.lampe:>9.1f}{speed.stock:>9.1f}"
                    f"{speed.ratio:>7.2f}  {least:.2f} to {most:.2f}")
        ours, theirs = found.peak_rss_mb
        if ours is not None and theirs is not None:
            out(f"peak memory  LaMPE {ours:,.0f} MB, stock {theirs:,.0f} MB "
                f"({ours / theirs:.3f})")
    if plot is not None:
        from ..plot import plot_speed

        ends = [at.length for at in found.comparisons]
        plot_speed(ends, {
            "prefill": {"LaMPE": [at.prefill.lampe for at in found.comparisons],
                        "stock": [at.prefill.stock for at in found.comparisons]},
            "decode": {"LaMPE": [at.decode.lampe for at in found.comparisons],
                       "stock": [at.decode.stock for at in found.comparisons]},
        }, plot)
