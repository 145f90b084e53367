"""llama_cpp: every library, which ggml loads by looking beside itself; llama-server; its record."""

from pathlib import Path

from PyInstaller.utils.hooks import collect_dynamic_libs, copy_metadata, get_package_paths

FOLDER = "llama_cpp/lib"
PROGRAMS = ("llama-server", "llama-fit-params", "ggml-rpc-server")

_package = Path(get_package_paths("llama_cpp")[1])
_beside = [_package / "lib" / f"{name}{end}" for name in PROGRAMS for end in ("", ".exe")]

# Nothing imports the processor's variants: they are named in no other library.
binaries = collect_dynamic_libs("llama_cpp")
binaries += [(str(path), FOLDER) for path in _beside if path.is_file()]
datas = copy_metadata("llama-cpp-python")
