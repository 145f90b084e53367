"""From a Hugging Face checkpoint folder to a GGUF, by llama.cpp's own converter and quantiser."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..container import paths
from ..container.leftovers import hidden_folder
from ..errors import LampeError, UsageError, how_to_add

SCRIPT = "convert_hf_to_gguf.py"
DIRECT = ("f32", "f16", "bf16", "q8_0")  # what the converter writes by itself
QUANTS = (
    *DIRECT, "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_1", "q4_0",
    "iq4_xs", "iq4_nl", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k",
)
DEFAULT = "f16"

OnStage = Callable[[str], None]


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a folder as Hugging Face lays out a model."""
    return paths.is_dir(path) and paths.exists(path / "config.json")


def find_converter() -> Path:
    """llama.cpp's converter in the pinned source that the backend was built from.

    Looked for under $LAMPE_GGUF_CACHE (~/.cache/lampe-gguf), where tools/backend.py keeps it.
    """
    given = os.environ.get("LAMPE_GGUF_CACHE")
    cache = Path(given).expanduser() if given else Path.home() / ".cache" / "lampe-gguf"
    found = sorted(cache.glob(f"trees/*/src/vendor/llama.cpp/{SCRIPT}"))
    if not found:
        raise LampeError(
            f"llama.cpp's converter is not under {cache}; run python3 tools/backend.py build "
            "there, which unpacks it"
        )
    return found[0]


@contextmanager
def as_gguf(
    folder: Path, quantize: str | None, beside: Path, on_stage: OnStage = lambda stage: None
) -> Iterator[Path]:
    """A GGUF made of a checkpoint, for as long as the context lasts.

    quantize  one of QUANTS; None: f16
    beside    the file is made in this folder, where there has to be room for it

    Raises LampeError with what the converter said last; no file is left behind.
    """
    kind = quantize or DEFAULT
    if kind not in QUANTS:
        raise UsageError(f"there is no type {kind!r}; it is one of {', '.join(QUANTS)}")
    if not is_checkpoint(folder):
        raise LampeError(f"{folder} is no checkpoint: it holds no config.json")
    with _folder(beside) as place:
        first = place / f"{folder.resolve().name}.gguf"
        on_stage("converting the checkpoint")
        _run(
            [sys.executable, os.fspath(find_converter()), os.fspath(folder), "--outfile",
             os.fspath(first), "--outtype", kind if kind in DIRECT else "f16"],
            "llama.cpp's converter",
        )
        if kind in DIRECT:
            yield first
            return
        on_stage(f"quantising to {kind}")
        second = first.with_name(f"{first.stem}-{kind}.gguf")
        _run(
            [sys.executable, "-m", f"{__package__}.quantize_side", os.fspath(first),
             os.fspath(second), kind],
            "llama.cpp's quantiser",
        )
        first.unlink()
        yield second


@contextmanager
def _folder(beside: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            place = stack.enter_context(hidden_folder(beside))
        except OSError as error:
            raise LampeError(
                f"cannot make files in {beside}: {error.strerror}; give an output in another folder"
            ) from None
        yield place


def _run(command: list[str], what: str) -> None:
    """Run a program to its end; Ctrl-C ends it too."""
    # the patched tree has its own gguf package, which belongs to its converter
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        try:
            output, _ = child.communicate()
        except BaseException:
            child.kill()
            raise
    if child.returncode == 0:
        return
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    missing = next((line for line in reversed(lines) if "No module named" in line), None)
    if missing is not None:
        raise LampeError(
            f"{what} needs more packages ({missing.rpartition(': ')[2]}); {how_to_add('hf')}"
        )
    raise LampeError(f"{what} failed: {lines[-1][:300] if lines else 'it said nothing'}")
