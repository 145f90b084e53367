"""The package's front door: cheap to open, and every name on it leads somewhere."""

import subprocess
import sys

import pytest

import lampe_gguf

HEAVY = ("numpy", "gguf", "llama_cpp", "torch", "transformers", "matplotlib", "click")


def test_import_loads_nothing_heavy():
    code = f"import sys, lampe_gguf; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_lazy_names_are_the_real_things():
    from lampe_gguf.errors import LampeError
    from lampe_gguf.method.config import LampeConfig

    assert lampe_gguf.LampeConfig is LampeConfig
    assert lampe_gguf.LampeError is LampeError
    assert set(lampe_gguf.__all__) <= set(dir(lampe_gguf))


def test_functions_and_modules_keep_apart():
    import lampe_gguf.convert
    import lampe_gguf.strip

    assert lampe_gguf.convert_gguf is lampe_gguf.convert.convert_gguf
    assert lampe_gguf.strip_gguf is lampe_gguf.strip.strip_gguf


def test_every_exported_name_exists():
    pytest.importorskip("llama_cpp")
    assert all(getattr(lampe_gguf, name) is not None for name in lampe_gguf.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = lampe_gguf.nonsense


def test_exit_codes():
    assert lampe_gguf.LampeError("x").exit_code == 1
    assert lampe_gguf.UsageError("x").exit_code == 2
    assert issubclass(lampe_gguf.UsageError, lampe_gguf.LampeError)
