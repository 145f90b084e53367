#!/usr/bin/env python3
"""Build the backend for a device beside the installed one, and try LaMPE there.

    python3 tools/device/on_device.py --vulkan [--skip-tests] [-- PYTEST ARGUMENTS]

First the tests of the portable path, each against fused attention on the processor, a random model
of every architecture and, on CUDA, the operator against the oracle; then SmolLM2, all of its layers
on the device: logits against the processor's, what of the graph runs where, and speed. Without a
graphics card, Mesa's driver for Vulkan computes on the processor (Debian 13: apt install glslc
libvulkan-dev spirv-headers mesa-vulkan-drivers; the driver of Debian 12 aborts now and then); the
speed then says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from patched import build
from patched.arguments import count
from patched.devices import DEVICES
from patched.ggml import op_tests
from patched.places import CHECKOUT, cache_dir, venv_python
from patched.report import guarded
from patched.wheel import unpack

TESTS = ("backend", "portable", "sliding_window", "layers_without_rope", "llama_archs")


def device_folder(device: str) -> Path:
    """A folder for PYTHONPATH that holds the patched build for a device."""
    wheel, key = build.build_wheel(build.Variant(device))
    folder = cache_dir() / "devices" / device / key
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unpack(wheel, folder)
    return folder


def environment(device: str, folder: Path) -> dict[str, str]:
    """Where to find the build, and a device that only computes on the processor, if it must be."""
    env = {**os.environ, "PYTHONPATH": str(folder), "LAMPE_GPU_LAYERS": "99",
           "PYTHONUNBUFFERED": "1"}
    if device == "vulkan":
        # llama.cpp skips drivers that compute on the processor unless they are named
        env.setdefault("GGML_VK_VISIBLE_DEVICES", "0")
    return env


def main() -> int:
    """Build, test, compare; returns the exit code of what failed first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group(required=True)
    for device in DEVICES:
        group.add_argument(f"--{device}", dest="device", action="store_const", const=device)
    parser.add_argument("--skip-tests", action="store_true", help="SmolLM2 only")
    parser.add_argument("--tokens", type=count, default=1024, help="to read with SmolLM2")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    env = environment(options.device, device_folder(options.device))
    python = str(venv_python())
    if not options.skip_tests:
        files = [f"tests/backend/test_{name}.py" for name in TESTS]
        if options.device == "cuda":
            files = [*op_tests("cuda_op"), *files]
            env["LAMPE_GGML_DEVICE"] = "CUDA0"
        # sums in half precision, a driver's default, would hide what the tests look for
        exact = {**env, "GGML_VK_DISABLE_F16": "1"}
        code = subprocess.run(
            [python, "-m", "pytest", "-p", "no:cacheprovider", *files, *options.pytest],
            cwd=CHECKOUT, env=exact).returncode
        if code:
            return code
    side = [python, str(CHECKOUT / "tools" / "device" / "on_device_side.py")]
    return subprocess.run([*side, json.dumps({"tokens": options.tokens})], env=env).returncode


if __name__ == "__main__":
    sys.exit(guarded(main))
