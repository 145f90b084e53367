"""Constants published or measured per model, safe defaults for others, the choice between."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from ..errors import LampeError, UsageError
from ..method.config import LampeConfig
from ..method.fields import MAX_LENGTH, MIN_WINDOW
from ..method.schedule import round_up

FLAT_OFFSET = 40.0  # 1 + exp(-40) is exactly 1 in double precision, so m = L at every length


def preset_context_length(window: int) -> int:
    """Longest input of a published preset: 4 windows, but beyond 131072 only 2.

    The authors tested up to 128K tokens, so 4 windows are cut there, or at 2 windows where
    those are more: a model already trained on 128K still gains a doubling.
    """
    return min(4 * window, max(131072, 2 * window))


def _published(
    name: str,
    window: int,
    slope: float,
    offset: float,
    max_mapping_length: float,
    local_window: int,
    short_length: int,
) -> LampeConfig:
    return LampeConfig(
        window=window,
        context_length=preset_context_length(window),
        local_window=local_window,
        tail_window=200,
        max_mapping_length=max_mapping_length,
        slope=slope,
        offset=offset,
        short_length=short_length,
        short_mapping_length=1536 if short_length else 0,
        provenance=f"preset {name}: constants published with LaMPE (arXiv 2508.02308)",
    )


def default_config(window: int) -> LampeConfig:
    """Values for a model with a training window of W = `window` tokens and no fitted constants.

    Plain RoPE up to W; beyond it L = W/2 at every length, with a local window of W/8: training
    rarely reaches the far half of the window, so the near half is what a model knows to use. They
    follow what is found in the far text and not the perplexity of new text, which hardly sees the
    map (method, section 7); tools/reports has the measurements on three models. They cost a little
    of it: 9.79 at the end of 16,384 tokens of Python's reference on SmolLM2, where L = W and s1 =
    W/2 give 9.55. s2 = min(200, W/32) is the published tail. Inputs up to 4 W are allowed; these
    values were measured up to 2 W.
    Raises LampeError for a window out of range.

    >>> from lampe_gguf import default_config
    >>> config = default_config(8192)
    >>> config.context_length, config.max_mapping_length, config.local_window
    (32768, 4096.0, 1024)
    >>> config.plan(8192).is_identity, config.plan(8193).mapping_length
    (True, 4096)
    """
    if not MIN_WINDOW <= window <= MAX_LENGTH:
        raise LampeError(
            f"the training window is {window} tokens; LaMPE needs one from {MIN_WINDOW} to "
            f"{MAX_LENGTH}: give the right one yourself (--window)"
        )
    step = max(1, min(512, window // 8))
    return LampeConfig(
        window=window,
        context_length=min(4 * window, MAX_LENGTH),
        local_window=window // 8,
        tail_window=min(200, window // 32),
        max_mapping_length=float(window // 2),
        slope=0.0,
        offset=FLAT_OFFSET,
        # a window that is no multiple of the step ends within one
        short_length=round_up(window, step) + 1,
        short_mapping_length=window,
        length_step=step,
        provenance=f"uncalibrated: plain up to the window of {window}, beyond it L = {window // 2}",
    )


def _measured(name: str, window: int) -> LampeConfig:
    """The defaults, where recall on this very model found nothing better."""
    config = default_config(window)
    return dataclasses.replace(config, provenance=(
        f"preset {name}: L = {config.max_mapping_length:.0f}, s1 = {config.local_window} beyond "
        "the window, by recall in real text"
    ))


# slope, offset, max_mapping_length and the short rule: method, section 1. tail_window is the
# authors' usual 200. local_window is theirs for 8K models; for the two larger windows it is the
# largest power of two that never pushes the published mapping length up (m must hold both
# exact windows: 1536 for Mistral, 5672 at 4096 tokens for Llama 3.1).
PRESETS: dict[str, LampeConfig] = {
    "llama2": _published(
        "llama2", 4096, 8.673006440952035e-05, -0.648012322406978, 2489.1055552214357, 512, 8192
    ),
    "llama3": _published(
        "llama3", 8192, 1.0493097327094324e-04, -2.466638011138158, 6204.409324666837, 512, 8192
    ),
    "mistral": _published(
        "mistral", 32768, 1.0493097327094324e-04, -2.466638011138158, 24576.0, 1024, 8192
    ),
    "llama3.1": _published(
        "llama3.1", 131072, 4.505261149632588e-05, -2.788576860718702, 82358.52413056031, 4096, 0
    ),
    # tools/reports has what these were found by
    "smollm2-135m": _measured("smollm2-135m", 8192),
    "gemma3-270m": _measured("gemma3-270m", 32768),
    "qwen2.5-coder-0.5b": _measured("qwen2.5-coder-0.5b", 32768),
}


@dataclass(frozen=True)
class _Family:
    arch: str
    name_pattern: str
    vocabularies: tuple[int, ...]


# How a file shows that it holds the model a preset was fitted on. The window is the preset's.
_FAMILIES: dict[str, _Family] = {
    "llama2": _Family("llama", r"llama[-_ ]?v?2(?![.\d])", (32000,)),
    "llama3": _Family("llama", r"llama[-_ ]?v?3(?![.\d])", (128256,)),
    "mistral": _Family("llama", r"mistral.*7b", (32000, 32768)),
    "llama3.1": _Family("llama", r"llama[-_ ]?v?3[._]1(?!\d)", (128256,)),
    "smollm2-135m": _Family("llama", r"smollm2[-_ ]135m", (49152,)),
    "gemma3-270m": _Family("gemma3", r"gemma[-_ ]?3[-_ ]270m", (262144,)),
    "qwen2.5-coder-0.5b": _Family(
        "qwen2", r"qwen[-_ ]?2\.5[-_ ]coder[-_ ]0\.5b", (151936,)
    ),
}


def preset(name: str) -> LampeConfig:
    """Published or calibrated values by name (method: section 1); UsageError where there are none.

    >>> from lampe_gguf import preset
    >>> preset("llama3").mapping_length(32768)
    4501
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise UsageError(
            f"there is no preset {name!r}; there are {', '.join(PRESETS)}"
        ) from None


def find_preset(arch: str, window: int, name: str = "", n_vocab: int | None = None) -> str | None:
    """Name of the preset fitted on this very model, or None.

    Architecture, window and the model's name must all agree, and the vocabulary's size where
    it is known: constants fitted on one model may harm another, and the defaults are good.
    """
    for preset_name, family in _FAMILIES.items():
        if (
            arch == family.arch
            and window == PRESETS[preset_name].window
            and re.search(family.name_pattern, name, re.IGNORECASE)
            and (n_vocab is None or n_vocab in family.vocabularies)
        ):
            return preset_name
    return None


def choose(arch: str, window: int, name: str = "", n_vocab: int | None = None) -> LampeConfig:
    """Configuration for a model as its file describes it; `provenance` says which and why.

    arch     GGUF architecture ("llama", ...)
    window   its context length, tokens
    name     its name, as free text
    n_vocab  its vocabulary's size, where known

    The preset where there is one for this model, else `default_config`. Raises LampeError for a
    window out of range.

    >>> from lampe_gguf import choose_config
    >>> choose_config("llama", 8192, "Meta-Llama-3-8B-Instruct").provenance
    'preset llama3: constants published with LaMPE (arXiv 2508.02308)'
    """
    found = find_preset(arch, window, name, n_vocab)
    return default_config(window) if found is None else preset(found)
