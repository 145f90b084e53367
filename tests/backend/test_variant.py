"""Which variant of the processor's backend is loaded, and what to do where none is."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_model import make_tiny_model

from lampe_gguf.backend import api, doctor, variant
from lampe_gguf.errors import LampeError


@pytest.mark.parametrize("name, found", [
    ("libggml-cpu.so", ""), ("libggml-cpu.dylib", ""), ("ggml-cpu.dll", ""),
    ("libggml-cpu-icelake.so", "icelake"), ("ggml-cpu-alderlake.dll", "alderlake"),
    ("/a/b/libggml-cpu-armv8.2_3.so", "armv8.2_3"), ("libggml-cpu-apple_m1.so", "apple_m1"),
    ("libggml-base.so", None), ("libggml-cuda.so", None), ("libggml-cpu.so.partial", None),
])
def test_the_name_of_a_library_says_which_variant_it_is(name: str, found: str | None) -> None:
    assert variant.variant_of(name) == found


def test_variants_are_listed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("libggml-cpu-zen4.so", "libggml-cpu-avx.so", "libggml-base.so", "llama-server"):
        (tmp_path / name).touch()
    assert variant.variants_in(tmp_path) == ["avx", "zen4"]


def test_the_loaded_library_is_found_by_its_code() -> None:
    found = doctor.examine()
    processor = next(each for each in doctor._devices() if each[1] == "CPU")
    library = variant.loaded_library(doctor._library("ggml-base"), processor[0])
    assert library and Path(library).parent == Path(api.library_path()).parent
    assert found.build and (found.variant or "native") in found.build
    assert found.build.startswith("portable" if found.variant else "native")


def test_an_address_that_is_no_code_has_no_library() -> None:
    assert variant._file_of(ctypes.addressof(ctypes.create_string_buffer(8))) is None


class _Kernel:
    """kernel32 of a system that has one module."""

    def __init__(self, known: bool) -> None:
        self.known = known

    def GetModuleHandleExW(self, how: int, address: Any, module: Any) -> int:  # noqa: N802
        assert how == 6
        return int(self.known)

    def GetModuleFileNameW(self, module: Any, name: Any, size: int) -> int:  # noqa: N802
        name.value = r"C:\app\llama_cpp\lib\ggml-cpu-haswell.dll"
        return len(name.value)


@pytest.mark.parametrize("known", [True, False])
def test_windows_is_asked_in_its_own_way(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    windll = type("windll", (), {"kernel32": _Kernel(known)})
    monkeypatch.setattr(ctypes, "windll", windll, raising=False)
    found = variant._file_on_windows(4096)
    assert found == (r"C:\app\llama_cpp\lib\ggml-cpu-haswell.dll" if known else None)


def test_a_build_without_a_library_for_this_processor_is_no_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = api.llama_cpp()._lib
    monkeypatch.setattr(doctor, "_devices", lambda: [])
    assert "no backend for the processor" in (doctor.examine().problem or "")
    monkeypatch.setattr(library, "ggml_backend_reg_count", lambda: 0)
    found = doctor.examine()
    assert not found.ok and found.problem is not None
    assert "suits this processor; run " in found.problem


def test_a_model_says_so_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lampe_gguf import LampeLlama

    library = api.llama_cpp()._lib
    monkeypatch.setattr(library, "ggml_backend_reg_count", lambda: 0)
    model = make_tiny_model(tmp_path / "model.gguf")

    def cannot(*arguments: Any, **options: Any) -> None:
        raise ValueError(f"Failed to load model from file: {model}")

    monkeypatch.setattr("llama_cpp.Llama.__init__", cannot)
    with pytest.raises(LampeError, match="suits this processor; run "):
        LampeLlama(model)


@pytest.mark.parametrize("checkout, words", [
    (True, "run python3 tools/bootstrap.py setup"), (False, "--find-links FOLDER"),
])
def test_the_advice_is_for_who_has_a_checkout_or_a_wheel(
    tmp_path: Path, checkout: bool, words: str
) -> None:
    if checkout:
        (tmp_path / "tools").mkdir()
        (tmp_path / "tools" / "bootstrap.py").touch()
    said = api.how_to_install(tmp_path / "lampe_gguf")
    assert words in said
    assert checkout or said.startswith(f"run {sys.executable} -m pip install ")
    assert checkout or "\"llama-cpp-python==0.3.36" in said


def test_a_wheel_without_the_server_says_so_without_a_checkout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lampe_gguf.backend import programs

    monkeypatch.setattr(programs, "is_checkout", lambda: False)
    with pytest.raises(LampeError, match="without llama-none; install a wheel that was made"):
        programs.find_program("llama-none")


def test_what_is_loaded_is_not_said_and_logging_stays_as_it_was() -> None:
    import logging

    logger = logging.getLogger("llama-cpp-python")
    before = logger.level
    with pytest.raises(ValueError), doctor._silence():
        assert logger.level == logging.CRITICAL
        raise ValueError
    assert logger.level == before
