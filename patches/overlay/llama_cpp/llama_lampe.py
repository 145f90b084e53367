"""The reason that LaMPE gives for a refusal, for the messages of exceptions."""

from __future__ import annotations

import ctypes

from .llama_cpp import _lib

_lib.llama_lampe_last_error.argtypes = []
_lib.llama_lampe_last_error.restype = ctypes.c_char_p


def reason() -> str:
    """": " and why this thread's last call into llama.cpp was refused; "" if LaMPE did not."""
    text = _lib.llama_lampe_last_error()
    return f": {text.decode('utf-8', 'replace')}" if text else ""
