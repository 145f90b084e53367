"""llama.cpp's quantiser in a process of its own, so that Ctrl-C ends it and its log stays apart.

Run as `python -m lampe_gguf.huggingface.quantize_side INPUT OUTPUT TYPE`, TYPE as in
checkpoint.QUANTS.
"""

from __future__ import annotations

import ctypes
import os
import sys


def main(source: str, target: str, kind: str) -> int:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = os.cpu_count() or 1
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    status = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    return 0 if status == 0 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
