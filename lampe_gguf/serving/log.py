"""What llama-server's log says: why it did not start, and which attention runs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path

from ..shown import shown

# "0.00.123.456 E llama_model_load: error loading model: the reason": the time, the level, and the
# function, each of which may be missing
_HEAD = re.compile(r"^(?:[\d.]+ )?(?:([EWIDT]) )?(?:\w+ +)?")
_FUNCTION = re.compile(r"^(?:[\w:~]+: +)*(?:error loading model: +)?")
_VAGUE = ("failed to load model", "exiting due to", "failed to create", "cleaning up",
          "error: invalid", "failed to fit")
# the backend warns where it composes attention of other operators, and says nothing where it is
# fused; the context has been made before a model is said to be loaded
_PORTABLE = ": it is composed of other operators"
_LOADED = "model loaded"


class Attention:
    """Which attention a server with LaMPE runs, gathered from its log line by line."""

    def __init__(self) -> None:
        self._reason = ""
        self._loaded = threading.Event()

    def read(self, line: str) -> None:
        """One line more."""
        if self._loaded.is_set():
            return
        if line.endswith(_PORTABLE):
            head = _HEAD.match(line)
            text = line[head.end() if head else 0:].removesuffix(_PORTABLE)
            self._reason = _FUNCTION.sub("", text)
        elif line.endswith(_LOADED):
            self._loaded.set()

    def path(self, seconds: float) -> tuple[str, str]:
        """"fused" or "portable", and why not fused; "" where the log is silent for `seconds`.

        It is where its user wants fewer words of it: `--log-disable`, `--log-verbosity 2`.
        """
        # what is said of loading has a lower rank than warnings: who hears the one hears the other
        loaded = self._loaded.wait(seconds)
        if self._reason:
            return "portable", self._reason
        return ("fused" if loaded else "", "")


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
