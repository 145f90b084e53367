"""What llama-server's log says of why it did not start."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..shown import shown

# "0.00.123.456 E llama_model_load: error loading model: the reason": the time, the level, and the
# function, each of which may be missing
_HEAD = re.compile(r"^(?:[\d.]+ )?(?:([EWIDT]) )?(?:\w+ +)?")
_FUNCTION = re.compile(r"^(?:[\w:~]+: +)*(?:error loading model: +)?")
_VAGUE = ("failed to load model", "exiting due to", "failed to create", "cleaning up",
          "error: invalid", "failed to fit")


def errors(lines: Iterable[str]) -> list[str]:
    """The reasons in a log, without the functions that give them."""
    found = []
    for line in lines:
        head = _HEAD.match(line)
        is_error = bool(head and head[1] == "E") or line.startswith("error")
        if is_error and head:
            text = line[head.end() if head[1] else 0:].strip()
            found.append(_FUNCTION.sub("", text) or text)
    return found


def reason(lines: Iterable[str], model: Path) -> str:
    """Why a model was not served, in one sentence."""
    said = errors(lines)
    clear = [text for text in said if not text.startswith(_VAGUE)] or said
    why = shown(clear[0], 300) if clear else "llama-server gave no reason"
    return f"{model.name} cannot be served: {why}"
