#!/usr/bin/env python3
"""How threads that wait for each other share a machine: OpenMP's ways, ggml's own, one thread less.

    .venv/bin/python tools/measure/bench_threads.py [MODEL] [--rounds 5] [--only pool] [--json F]

Each way reads 512 tokens and writes some, at 1,024 and at 16,384 tokens of context, alone on the
machine and beside one process that computes without end. Medians over the rounds, in which the ways
take turns; `kept` is the speed beside the busy process over the same way's own alone, `alone` the
speed alone over OpenMP's, both as the median of the rounds.

  openmp          OpenMP as it is: threads that wait look for milliseconds, then sleep
  openmp-passive  OMP_WAIT_POLICY=passive: they sleep at once
  openmp-N        GOMP_SPINCOUNT=N: they look N times before
  openmp-less     as it is, one thread less
  pool            ggml's own threads, which look for at most 200 us, less where that is in vain,
                  and then sleep (GGML_LAMPE_SPIN)
  pool-N          which look for N us at most; -1 never sleeps, as upstream's do
  pool-kept-N     threads that stay between two graphs, attached to the context, polling level N
  pool-less       ggml's own, one thread less

The installed backend must be a native build, which has ggml's own threads; ggml is compiled once
more with OpenMP, in the cache. --portable DIR takes the libraries of a portable wheel instead (its
llama_cpp/lib) for ggml's own threads, and compares compilers too. Linux. The machine must be idle
otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arguments import COUNT, run, tool
from demo import model_path
from patched import ggml
from patched.compile import find_toolchain
from patched.places import cache_dir
from patched.tree import locked_tree

from lampe_gguf.backend import api
from lampe_gguf.backend.cores import usable_cores
from lampe_gguf.cli.progress import Progress
from lampe_gguf.errors import LampeError

BATCH = 512  # tokens that a run reads
SIDE = Path(__file__).with_name("bench_threads_side.py")
BUSY = "while True:\n    sum(range(1000))\n"
LENGTHS = "1024,16384"
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GGML_LAMPE_SPIN", "LLAMA_CPP_LIB_PATH")
# what is wanted of the default: `kept` at least, `alone` at least
LEAST_KEPT, LEAST_ALONE = 0.4, 0.98


@dataclass(frozen=True)
class Way:
    """How threads wait: the environment, threads taken away, the pool that is attached."""

    env: dict[str, str] = field(default_factory=dict)
    less: int = 0
    pool: bool = False  # ggml's own threads
    poll: int | None = None


WAYS = {
    "openmp": Way(),
    "openmp-passive": Way({"OMP_WAIT_POLICY": "passive"}),
    "openmp-1000": Way({"GOMP_SPINCOUNT": "1000"}),
    "openmp-10000": Way({"GOMP_SPINCOUNT": "10000"}),
    "openmp-less": Way(less=1),
    "pool": Way(pool=True),
    "pool-0": Way({"GGML_LAMPE_SPIN": "0"}, pool=True),
    "pool-50": Way({"GGML_LAMPE_SPIN": "50"}, pool=True),
    "pool-1000": Way({"GGML_LAMPE_SPIN": "1000"}, pool=True),
    "pool--1": Way({"GGML_LAMPE_SPIN": "-1"}, pool=True),
    "pool-kept-0": Way(pool=True, poll=0),
    "pool-kept-50": Way(pool=True, poll=50),
    "pool-less": Way(less=1, pool=True),
}


def openmp_libraries() -> Path:
    """The installed libraries, with ggml's CPU backend compiled with OpenMP; made once."""
    installed = Path(api.library_path()).parent
    if not any(installed.glob("libggml-cpu.so")):
        raise LampeError("the installed backend is no native build; run "
                         "'python3 tools/backend.py build'")
    folder = cache_dir() / "threads" / f"openmp-{api.version()}"
    if not (folder / "made").exists():
        with locked_tree("threads") as tree:
            ggml.lay(tree)
            made = ggml.compile_libraries(tree, find_toolchain("cpu"), "openmp", "with OpenMP",
                                          ["-DGGML_NATIVE=ON", "-DGGML_OPENMP=ON"])
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for path in (*installed.glob("*.so"), *made.glob("libggml-*.so")):
                shutil.copyfile(path, folder / path.name)
        (folder / "made").touch()
    return folder


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that compute without end, as long as this lasts."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for each in others:
            each.kill()
            each.wait()


def lengths_of(text: str) -> list[int]:
    """The lengths that an option says; click.BadParameter where they are none."""
    found = [int(each) if each.isdigit() else 0 for each in text.split(",")]
    if found != sorted(set(found)) or found[0] <= BATCH:
        raise click.BadParameter(f"{text!r} are no ascending numbers above {BATCH}",
                                 param_hint="--lengths")
    return found


def side(way: Way, libraries: Path | None, model: Path, threads: int, lengths: list[int],
         states: Path, clock: str = "perf_counter") -> dict[str, float]:
    """One run of a way: tokens per second of reading and writing, by what was done.

    libraries  where they lie, None: the installed ones
    clock      the function of `time` that measures
    """
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    env.update(way.env)
    if libraries is not None:
        env["LLAMA_CPP_LIB_PATH"] = str(libraries.resolve())
    options = {"model": str(model), "lengths": lengths, "batch": BATCH,
               "threads": max(1, threads - way.less), "poll": way.poll, "states": str(states),
               "clock": clock}
    done = subprocess.run([sys.executable, SIDE, json.dumps(options)], env=env, text=True,
                          capture_output=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise LampeError(f"a run failed: {last:.200}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


Speeds = dict[tuple[str, bool, str], list[float]]  # by way, whether beside another, and what


def measure(names: list[str], libraries: dict[str, Path | None], model: Path, threads: int,
            lengths: list[int], rounds: int, others: int) -> Speeds:
    """Every way alone and beside the busy process, in turns; its libraries as side() has them."""
    states = cache_dir() / "threads" / "states"
    states.mkdir(parents=True, exist_ok=True)
    speeds: Speeds = defaultdict(list)
    first = names[0]
    side(WAYS[first], libraries[first], model, threads, lengths, states)  # what all runs begin with
    with Progress("measuring", rounds * len(names) * 2, "runs") as progress:
        for number in range(rounds):
            for name in names[number % len(names):] + names[:number % len(names)]:
                for beside in (False, True):
                    with busy(others if beside else 0):
                        found = side(WAYS[name], libraries[name], model, threads, lengths,
                                     states)
                    for what, speed in found.items():
                        speeds[name, beside, what].append(speed)
                    progress.advance(1)
    return speeds


def summary(speeds: Speeds, first: str) -> list[dict[str, Any]]:
    """Rows by way and what was done: speeds, and the ratios pair by pair."""
    rows: list[dict[str, Any]] = []
    for name, beside, what in speeds:
        if beside:
            continue
        alone, together = speeds[name, False, what], speeds[name, True, what]
        rows.append({
            "way": name, "what": what,
            "speed": statistics.median(alone),
            "beside": statistics.median(together),
            "kept": statistics.median(b / a for a, b in zip(alone, together, strict=True)),
            "alone": statistics.median(
                a / b for a, b in zip(alone, speeds[first, False, what], strict=True)),
        })
    return rows


def verdict(rows: list[dict[str, Any]]) -> list[str]:
    """The ways that keep enough beside another and lose little alone, whatever was done."""
    names = dict.fromkeys(row["way"] for row in rows)
    return [name for name in names
            if all(row["kept"] >= LEAST_KEPT and row["alone"] >= LEAST_ALONE
                   for row in rows if row["way"] == name)]


def show(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| way | what | alone, tokens/s | beside one | kept | alone, of OpenMP's |",
             "|---|---|---|---|---|---|"]
    lines += [f"| {row['way']} | {row['what']} | {row['speed']:.1f} | {row['beside']:.1f} | "
              f"{row['kept']:.2f} | {row['alone']:.3f} |" for row in rows]
    return "\n".join(lines)


@tool(__doc__)
@click.argument("model", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--lengths", default=LENGTHS, show_default=True, metavar="N,N",
              help="Tokens in the context, ascending, each above 512.")
@click.option("--rounds", type=COUNT, default=5, help="Turns that every way takes.")
@click.option("--threads", type=COUNT, help="Default: one for each core.")
@click.option("--busy", "others", type=COUNT, default=1, help="Processes to share with.")
@click.option("--only", metavar="WAYS", help="Some of them, with commas; the first is compared "
              "with.")
@click.option("--portable", type=click.Path(exists=True, path_type=Path), metavar="DIR",
              help="The libraries of a portable wheel, for ggml's own threads.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="The rows as JSON, too.")
def main(model: Path | None, lengths: str, rounds: int, threads: int | None, others: int,
         only: str | None, portable: Path | None, file: Path | None) -> None:
    names = only.split(",") if only else list(WAYS)
    for name in names:
        if name not in WAYS:
            raise click.BadParameter(f"there is no way {name!r}; choose from {', '.join(WAYS)}",
                                     param_hint="--only")
    wanted = lengths_of(lengths)
    openmp = None if all(WAYS[name].pool for name in names) else openmp_libraries()
    libraries = {name: portable if WAYS[name].pool else openmp for name in names}
    threads = threads or usable_cores() or os.cpu_count() or 1
    speeds = measure(names, libraries, model or model_path(), threads, wanted, rounds, others)
    rows = summary(speeds, names[0])
    print(f"{threads} threads, {rounds} rounds, backend {api.version()}")
    print(show(rows))
    good = verdict(rows)
    print(f"keep {LEAST_KEPT} beside another and {LEAST_ALONE} alone: {', '.join(good) or 'none'}")
    if file:
        file.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    run(main)
