"""Which architectures LaMPE can extend, and why it cannot extend the others.

The early answer, from a file's metadata alone, for the pinned llama.cpp. The backend does not
rely on it: it checks the hyperparameters and the graph that the model really builds.

An architecture qualifies when its attention is causal over a plain KV cache, with RoPE of the
NORM or NEOX kind, positions used for nothing else, and nothing between RoPE and attention that does
not commute with a rotation. Layers without RoPE stay as they are; those that see a sliding window
only keep their positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import LampeError

QUALIFYING = frozenset(
    """
    apertus arcee arctic baichuan bailingmoe bailingmoe2 bitnet chameleon chatglm codeshell
    command-r dbrx deci deepseek dots1 ernie4_5 ernie4_5-moe exaone exaone4 falcon gemma gemma2
    gemma3 gemma3n gemma4 glm4 glm4moe gpt-oss gptneox granite granite_swa granitemoe grok
    grovemoe hy_v3 internlm2 jais2 laguna llama mellum mimo2 minicpm minimax-m2 mistral3 nanbeige
    nemotron olmo olmo2 olmoe openelm orion pangu-embedded phi2 phi3 phimoe plamo plamo3 qwen
    qwen2 qwen2moe qwen3 qwen3moe seed_oss smallthinker smollm3 spark2_5 stablelm starcoder2
    step35 xverse
    """.split()
)

SLIDING_WINDOW = "it was trained with a sliding window that the backend does not keep"

GLOBAL_WITHOUT_ROPE = "its layers that see the whole input have no RoPE"

# these have sliding-window layers where the file gives a window, and only then
_MAY_SLIDE = ("gemma3", "laguna", "mellum", "olmo2", "plamo3", "smallthinker")
_SLIDE = ("gemma2", "gemma3n", "gemma4", "gpt-oss", "granite_swa", "mimo2", "spark2_5", "step35")

_REASONS = {
    "its positions are M-RoPE": """
        hunyuan_vl paddleocr qwen2vl qwen35 qwen35moe qwen3tts qwen3vl qwen3vlmoe qwen4exp
        """,
    GLOBAL_WITHOUT_ROPE: "cohere2 exaone-moe maple muse-glimmer",
    "its layers that see the whole input have no RoPE, or few of them do": "afmoe cohere2moe",
    "its windows do not slide token by token": "llama4",
    "its layers switch adapters, which has not been tried": "graniteswitch",
    "it uses multi-head latent attention (MLA)": """
        deepseek2 deepseek32 deepseek4 dots3note glm-dsa hy_v4 minicpm3 mistral4 plm
        """,
    "it has recurrent layers": """
        arwkv7 bailingmoe3 falcon-h1 glm5-next granitehybrid jamba kimi-k3 kimi-linear lfm2 lfm2moe
        mamba mamba2 minimax-01 nemotron_h nemotron_h_moe plamo2 qwen3next rwkv6 rwkv6qwen2 rwkv7
        """,
    "its attention is not causal": """
        bert dream eurobert gemma-embedding jina-bert-v2 jina-bert-v3 llada llada-moe llama-embed
        modern-bert neo-bert nomic-bert nomic-bert-moe rnd1
        """,
    "it normalises queries and keys after RoPE, which a later rotation would not survive": """
        hunyuan-dense hunyuan-moe maincoder talkie
        """,
    "it has no RoPE": "bloom gpt2 jais mpt refact starcoder",
    "it rotates other pairs of dimensions than its RoPE type says": "deepseek2-ocr",
    "it is a mere name in the backend, without code": "gptj",
    "it has an encoder": "t5 t5encoder",
    "it is no plain language model": """
        clip cogvlm dflash eagle3 gemma4-assistant hrm_text pockettts wavtokenizer-dec
        """,
    "its attention is sparse": "minimax-m3",
}
REASONS = {arch: reason for reason, names in _REASONS.items() for arch in names.split()}


LOCAL = "layers that see a sliding window only keep their positions"

# what the file, and not the architecture alone, decides about those that qualify
_CONDITIONS = {
    **{arch: LOCAL for arch in (*_SLIDE, *_MAY_SLIDE)},
    "smallthinker": "not where the file gives a sliding window",
    "granite_swa": "not where the layers that see the whole input have no RoPE",
    "phi3": "not where its sliding window is shorter than its context",
    "phimoe": "not where its sliding window is shorter than its context",
    "smollm3": "layers without RoPE stay as they are",
    "exaone4": "not the 32B model: its layers that see the whole input have no RoPE",
    "mistral3": "not where its attention temperature depends on positions",
    "granite": "not where the file switches RoPE off",
    "baichuan": "not the 13B model, which uses ALiBi",
}


@dataclass(frozen=True)
class Architecture:
    """A row of the table: `remark` says why not, or on what condition."""

    name: str
    qualifies: bool
    remark: str


def table() -> list[Architecture]:
    """Every architecture of the pinned llama.cpp, by name."""
    rows = [Architecture(name, True, _CONDITIONS.get(name, "")) for name in QUALIFYING]
    rows += [Architecture(name, False, reason) for name, reason in REASONS.items()]
    return sorted(rows, key=lambda row: row.name)


@dataclass(frozen=True)
class Field:
    """A value that decides: its Python types, the least number, and both in words."""

    types: tuple[type, ...]
    least: float
    allowed: str

    def holds(self, value: Any) -> bool:
        # a bool is an int to Python, and none in a file
        if type(value) not in self.types:
            return False
        if isinstance(value, list):
            return all(type(each) in (int, bool) for each in value)
        return isinstance(value, (str, bool)) or value >= self.least


_COUNT = Field((int,), 0, "a whole number of at least 0")
_YES_OR_NO = Field((bool,), 0, "true or false")
_NUMBERS = Field((int, list), -math.inf, "a whole number, or an array of them")

# what the reasons below look at, by key, without the architecture before it
FIELDS = {
    "attention.causal": _YES_OR_NO,
    "attention.rope_pattern": _NUMBERS,
    "attention.sliding_window": _COUNT,
    "attention.sliding_window_pattern": _NUMBERS,
    "attention.temperature_scale": Field((int, float), -math.inf, "a number"),
    "block_count": _COUNT,
    "context_length": _COUNT,
    "rope.dimension_count": _COUNT,
    "rope.dimension_sections": _NUMBERS,
    "rope.scaling.finetuned": _YES_OR_NO,
}
_TYPE = Field((str,), 0, "a string")


def field(arch: str, metadata: Mapping[str, Any], name: str) -> Any:
    """One of FIELDS, None where the metadata lack it; LampeError where it is of a wrong type."""
    return _checked(metadata, f"{arch}.{name}", FIELDS[name])


def _checked(metadata: Mapping[str, Any], key: str, kind: Field) -> Any:
    value = metadata.get(key)
    if value is None or kind.holds(value):
        return value
    array = "an array of other things" if list in kind.types else "an array"
    words: dict[type, str] = {str: "a string", list: array}
    found = words.get(type(value), str(value).lower())
    raise LampeError(
        f"{key} is {found} in this file, and must be {kind.allowed}; make the file again"
    )


def _global_without_rope(value: Callable[[str], Any]) -> bool:
    """Whether the file's patterns of layers leave none with RoPE that sees the whole input."""
    windows = value("attention.sliding_window_pattern")
    ropes = value("attention.rope_pattern")
    if not isinstance(windows, list) or not isinstance(ropes, list):
        return False
    return not any(rope and not window for window, rope in zip(windows, ropes, strict=False))


def slides(arch: str, metadata: Mapping[str, Any]) -> bool:
    """Whether some layers of a model that qualifies see a sliding window only."""
    if arch in _SLIDE:
        return True
    return arch in _MAY_SLIDE and bool(field(arch, metadata, "attention.sliding_window"))


def qualifies(arch: str, metadata: Mapping[str, Any]) -> str | None:
    """None where LaMPE can extend a model, else the reason as a clause ("it uses ALiBi").

    arch      its `general.architecture`
    metadata  its other values by key, as far as they are known

    Raises LampeError where a value that decides is of a wrong type.
    """
    kind = _checked(metadata, "general.type", _TYPE)
    if kind in ("adapter", "imatrix", "mmproj"):
        return f"its file holds no model but an addition to one ({kind})"
    if arch in REASONS:
        return REASONS[arch]
    if arch not in QUALIFYING:
        return "this architecture is unknown to the backend"

    def value(name: str) -> Any:
        return field(arch, metadata, name)

    if value("attention.causal") is False:
        return "its attention is not causal"
    sections = value("rope.dimension_sections")
    if any(sections) if isinstance(sections, list) else sections:
        return "its positions are M-RoPE"
    if arch == "smallthinker" and value("attention.sliding_window"):
        return GLOBAL_WITHOUT_ROPE
    if arch == "granite_swa" and _global_without_rope(value):
        return GLOBAL_WITHOUT_ROPE
    if arch in ("phi3", "phimoe"):
        window = value("attention.sliding_window") or 0
        if 0 < window < (value("context_length") or 0):
            # trained so, run by llama.cpp with full attention: nothing that LaMPE could extend
            return SLIDING_WINDOW
    if arch == "exaone4" and value("block_count") == 64:
        return GLOBAL_WITHOUT_ROPE  # the 32B model
    if value("attention.temperature_scale"):
        return "its attention temperature depends on positions"
    if arch == "granite" and value("rope.scaling.finetuned") is False:
        return "it has no RoPE"  # Granite's files switch it off with this key
    if arch == "baichuan" and value("block_count") == 40:
        return "it uses ALiBi"  # the 13B model
    n_rot = value("rope.dimension_count")
    if n_rot is not None and (n_rot < 2 or n_rot % 2):
        return "it rotates an odd number of dimensions"
    return None
