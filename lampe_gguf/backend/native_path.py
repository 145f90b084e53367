"""Names of files for llama.cpp."""

from __future__ import annotations

import os


class NativePath(str):
    """A path that llama-cpp-python can hand on even where its bytes are no UTF-8.

    It encodes paths as UTF-8, which fails for what Python keeps as stray bytes; the system's own
    encoding gives the bytes that the file is known by.
    """

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return os.fsencode(str(self))
