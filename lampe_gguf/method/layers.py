"""LayerMap: the map of some layers, where it is not that of all others; and its text."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ..errors import UsageError


@dataclass(frozen=True)
class LayerMap:
    """What is different in some layers of a model; everything else is as in all others.

    layers              their numbers from 0 on, ascending
    local_window        s1, tokens
    tail_window         s2, tokens
    max_mapping_length  L, tokens

    As a text, and with `str`, it is "layers:L/s1":

    >>> from lampe_gguf import LampeConfig, LayerMap, default_config
    >>> import dataclasses
    >>> narrow = LayerMap((10, 11, 12, 20), 512, 64, 1024.0)
    >>> str(narrow)
    '10-12,20:1024/512'
    >>> config = dataclasses.replace(default_config(8192), layer_maps=(narrow,)).validate()
    >>> [config.for_layer(i).plan(16384).mapping_length for i in (10, 13)]
    [1024, 4096]
    """

    layers: tuple[int, ...]
    local_window: int
    tail_window: int
    max_mapping_length: float

    def __str__(self) -> str:
        return f"{layers_text(self.layers)}:{self.max_mapping_length:g}/{self.local_window}"

    @classmethod
    def parse(cls, text: str, tail_window: int) -> LayerMap:
        """Read "10-12,20:1024/512"; the tail window becomes smaller where it does not fit.

        tail_window  of all other layers, tokens
        Raises UsageError where it is none.
        """
        numbers, _, values = text.partition(":")
        most, _, local = values.partition("/")
        try:
            layers = _layers(numbers)
            mapping_length, local_window = _number(most), _number(local)
        except ValueError:
            raise UsageError(
                f"there is no map of layers {text!r:.80}; it is layers:L/s1, such as "
                "10-14,25-29:1024/512"
            ) from None
        tail = max(0, min(tail_window, mapping_length - local_window - 1))
        return cls(layers, local_window, tail, float(mapping_length))


def layers_text(layers: tuple[int, ...]) -> str:
    """Numbers of layers in words: "10-12,20"."""
    parts: list[str] = []
    first = 0
    for i in range(1, len(layers) + 1):
        if i == len(layers) or layers[i] != layers[i - 1] + 1:
            ends = layers[first], layers[i - 1]
            parts.append(f"{ends[0]}-{ends[1]}" if ends[0] < ends[1] else f"{ends[0]}")
            first = i
    return ",".join(parts)


def is_ascending(layers: object) -> bool:
    """Whether these are numbers of layers in their order, each once, and there are some."""
    return (
        isinstance(layers, tuple)
        and len(layers) > 0
        and all(isinstance(i, int) and not isinstance(i, bool) for i in layers)
        and all(one < other for one, other in pairwise(layers))
    )


def _layers(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = _number(first)
        end = _number(last) if dash else begin
        if end - begin > 4096:  # of no model; the list of them would fill the memory
            raise ValueError(part)
        found += range(begin, end + 1) or [begin, end]  # backwards: refused as such
    return tuple(found)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ValueError(text)
    return int(text)
