"""lampe_gguf: modules that are loaded when first used, by names that no import says."""

from PyInstaller.utils.hooks import collect_submodules, copy_metadata

# these want packages that an app need not have (torch, transformers, matplotlib); one that uses
# them imports them itself
_LEFT_OUT = ("huggingface", "plot", "attention.plot", "backend.freezing")


def _wanted(name: str) -> bool:
    inner = name.removeprefix("lampe_gguf.")
    return not any(inner == each or inner.startswith(each + ".") for each in _LEFT_OUT)


hiddenimports = collect_submodules("lampe_gguf", filter=_wanted)
datas = copy_metadata("lampe-gguf")
