"""Where readings are kept, and how much of the disk they may take."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import UsageError

FOLDER = "LAMPE_GGUF_CACHE"  # the environment's name for the folder that `readings` is in
MOST = "LAMPE_GGUF_READINGS_MAX"  # and for the most that they may take together
DEFAULT_MOST = 10**10

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 3, "m": 6, "g": 9, "t": 12}


def folder() -> Path:
    """`readings` in $LAMPE_GGUF_CACHE, or in ~/.cache/lampe-gguf."""
    given = os.environ.get(FOLDER)
    cache = Path(given).expanduser() if given else Path.home() / ".cache" / "lampe-gguf"
    return cache / "readings"


def parse_size(text: str) -> int:
    """Bytes of "10G", "500 MB" or "0", powers of 1000 as everywhere here; UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r:.80} is no size; give one as 10G, 500M, or 0 to keep nothing")
    return int(float(match[1]) * 10 ** _POWERS[match[2].lower()])


def most() -> int:
    """What $LAMPE_GGUF_READINGS_MAX says, else 10 GB; UsageError where it says no size."""
    given = os.environ.get(MOST)
    if not given:
        return DEFAULT_MOST
    try:
        return parse_size(given)
    except UsageError as error:
        raise UsageError(f"${MOST}: {error}") from None
