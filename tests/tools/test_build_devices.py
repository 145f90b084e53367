"""What a build for each device needs: looked for, and named where it is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from patched import build, devices
from patched import compile as compiling
from patched.report import Failure


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any kit; the folder is its PATH."""
    for name in ("CUDACXX", "VULKAN_SDK", "CMAKE_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "HEADER_FOLDERS", ())
    monkeypatch.setattr(devices, "USUAL_NVCC", tmp_path / "no" / "nvcc")
    monkeypatch.setattr(sys, "platform", "linux")
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CMAKE_ARGS", f"-DVulkan_INCLUDE_DIR={tmp_path / 'vk'}")
    return folder


def program(path: Path, script: str = "") -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def vulkan_headers(folder: Path, patch: int) -> None:
    (folder / "vulkan").mkdir(parents=True)
    (folder / "vulkan" / "vulkan_core.h").write_text(
        f"#define VK_HEADER_VERSION {patch}\n"
        "#define VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION(0, 1, 3, VK_HEADER_VERSION)\n")


@pytest.mark.parametrize("patch, fits", [(271, False), (272, True)])
def test_vulkan_piece_by_piece(bare: Path, tmp_path: Path, patch: int, fits: bool) -> None:
    vulkan_headers(tmp_path / "vk", patch)
    with pytest.raises(Failure, match="--vulkan needs glslc"):
        devices.require("vulkan")
    program(bare / "glslc")
    if fits:
        devices.require("vulkan")
        assert "--vulkan is possible too: Vulkan 1.3.272" in devices.describe("cpu")
    else:
        with pytest.raises(Failure, match=r"needs headers of 1.3.272 .* are 1.3.271"):
            devices.require("vulkan")
        assert any("--vulkan is not possible yet" in line for line in devices.describe("cpu"))


def test_cuda_piece_by_piece(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="--cuda needs NVIDIA's compiler nvcc"):
        devices.require("cuda")
    toolkit = tmp_path / "toolkit"
    (toolkit / "bin").mkdir(parents=True)
    (toolkit / "include").mkdir()
    # as where the PATH has a script that calls the real one
    program(bare / "nvcc", 'case "$1" in --version) echo "tools, release 13.0, V13";;\n'
                           f'*) echo "#$ _HERE_={toolkit}/bin" >&2;; esac')
    with pytest.raises(Failure, match=r"--cuda needs cuBLAS, and .*toolkit has no cublas_v2.h"):
        devices.require("cuda")
    assert any("--cuda is not possible yet" in line for line in devices.describe("cpu"))
    (toolkit / "include" / "cublas_v2.h").touch()
    devices.require("cuda")
    assert devices.describe("cpu") == ["building for the processor alone",
                                       "--cuda is possible too: CUDA 13.0"]
    assert devices.describe("cuda") == ["building for CUDA 13.0"]


def test_nothing_is_said_of_kits_that_are_not_there(bare: Path) -> None:
    assert devices.describe("cpu") == ["building for the processor alone"]
    with pytest.raises(Failure, match="--metal needs a Mac"):
        devices.require("metal")


def test_the_comparison_keeps_upstreams_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMAKE_ARGS", "")

    def openmp(variant: build.Variant) -> str:
        flags = [*compiling.cmake_flags("cpu"), *build.toolchain(variant).flags]
        return [flag for flag in flags if flag.startswith("-DGGML_OPENMP=")][-1][-3:]

    assert openmp(build.Variant()) == "OFF" and openmp(build.Variant(stock=True)) == "=ON"
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_OPENMP=ON")
    assert openmp(build.Variant()) == "=ON"
