"""Perplexity by position, far beyond the training window, in bounded memory."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..backend.vocabulary import beginning, excerpt, read_tokens, vocabulary
from ..container.format import padded
from ..conversation.session import PAD
from ..errors import UsageError
from ..method.config import LampeConfig
from ..model.choose import read_file
from ..model.presets import default_config

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

SCALINGS = ("linear", "yarn", "ntk")  # of the frequencies, by a factor
METHODS = (
    "lampe", "truncate", "rope", "linear", "yarn", "ntk", "selfextend", "jetlong", "rerope",
)
FOR_LENGTH = ("linear", "yarn", "ntk", "selfextend")  # have a parameter that the length decides
BLOCK = 2048  # tokens per entry of Perplexity.blocks
BATCH = 512  # tokens whose logits are held at once: BATCH x vocabulary floats

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Perplexity:
    """Result of one run; the numbers are exp(mean negative log-likelihood per token).

    all          over every token predicted (for "truncate": the last window's)
    last_2048, last_512   over the end of the text, None where it is shorter
    blocks       (position of the block's end in the text, perplexity), every 2,048 tokens
    parameters   what the method was run with
    path         the attention that ran: "portable" or "fused"
    """

    method: str
    parameters: dict[str, Any]
    tokens: int
    all: float
    last_2048: float | None
    last_512: float | None
    blocks: list[tuple[int, float]]
    seconds: float
    tokens_per_second: float
    path: str


@dataclass(frozen=True)
class Setting:
    """How to open the model for a method, and what to report of it."""

    lampe: LampeConfig
    options: dict[str, Any]
    parameters: dict[str, Any]


def setting(
    method: str,
    config: LampeConfig,
    length: int,
    *,
    factor: float | None = None,
    local_window: int | None = None,
    group_size: int | None = None,
    freq_base: float = 10000.0,
    n_rot: int = 64,
) -> Setting:
    """What a method means for `length` tokens (method: section 4).

    All methods run in the same attention, so that what differs is their positions: plain RoPE is
    LaMPE's identity plan, with which the logits are stock's within rounding.

    config         LaMPE's, whose window the others use too
    factor         of linear, yarn and ntk; length / window rounded up by default
    local_window   of lampe and the neighbours
    group_size     SelfExtend's G; the smallest that keeps it inside the window by default
    freq_base, n_rot   the model's own, for ntk
    """
    from llama_cpp import llama_cpp as module

    window = config.window
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}; it is one of {', '.join(METHODS)}")
    # padded as llama.cpp pads, which warns of a context beyond the model's length
    context_length = max(config.context_length, padded(length, PAD))
    if method in ("rope", "truncate"):
        return Setting(plain_rope(window, context_length), {}, {})
    if method in ("linear", "yarn", "ntk"):
        scale = factor if factor is not None else float(max(1, math.ceil(length / window)))
        if not 1 <= scale < math.inf:
            raise UsageError(f"the factor is {scale:g}; it must be at least 1")
        options: dict[str, Any] = {}
        if method == "linear":
            options["rope_scaling_type"] = module.LLAMA_ROPE_SCALING_TYPE_LINEAR
            options["rope_freq_scale"] = 1 / scale
        elif method == "yarn":
            options["rope_scaling_type"] = module.LLAMA_ROPE_SCALING_TYPE_YARN
            options["rope_freq_scale"] = 1 / scale
            options["yarn_orig_ctx"] = window
        else:
            options["rope_freq_base"] = freq_base * scale ** (n_rot / (n_rot - 2))
        return Setting(plain_rope(window, context_length), options, {"factor": scale})
    changes: dict[str, Any] = {"context_length": context_length}
    if method != "lampe":
        changes["method"] = method
        default = {"selfextend": window // 8, "jetlong": window // 4, "rerope": window // 2}
        changes["local_window"] = default[method]
        changes["tail_window"] = 0
        changes["max_mapping_length"] = float(window)
        changes["short_length"] = changes["short_mapping_length"] = 0
    if local_window is not None:
        changes["local_window"] = local_window
    if method == "selfextend":
        local = changes["local_window"]
        least = max(1, math.ceil((length - local) / max(1, window - local)))
        changes["group_size"] = group_size if group_size is not None else least
    used = dataclasses.replace(config, **changes).validate()
    names = ["window", "local_window", "length_policy", "length_step"]
    if method == "lampe":
        names += ["tail_window", "max_mapping_length", "slope", "offset", "provenance"]
    if method == "selfextend":
        names.append("group_size")
    return Setting(used, {}, {name: getattr(used, name) for name in names})


def plain_rope(window: int, context_length: int) -> LampeConfig:
    """Every position as it is, in LaMPE's attention."""
    return dataclasses.replace(
        default_config(window), context_length=context_length, method="rope"
    ).validate()


def negative_log_likelihood(
    logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """-ln p(target) per row; logits [n, n_vocab], targets [n]."""
    top = logits.max(axis=1)
    # row by row: a second n x vocabulary array would double the memory
    total = np.array([np.exp(row - most).sum(dtype=np.float64)
                      for row, most in zip(logits, top, strict=True)])
    chosen = logits[np.arange(len(targets)), targets].astype(np.float64)
    return np.asarray(np.log(total) + top - chosen, dtype=np.float64)


def score(
    llm: LampeLlama, tokens: list[int], on_progress: OnProgress | None = None
) -> npt.NDArray[np.float64]:
    """Negative log-likelihood of tokens[1:], each given all before it: [len(tokens) - 1].

    Reads into the context of `llm`, emptied first, which keeps the tokens: generation can go on
    from there. Holds the logits of one batch at a time.
    """
    found = np.empty(len(tokens) - 1)
    llm.reset()
    for start, logits in llm.read_logits(tokens):
        targets = np.array(tokens[start + 1 : start + 1 + len(logits)], dtype=np.int64)
        found[start : start + len(targets)] = negative_log_likelihood(
            logits[: len(targets)], targets
        )
        if on_progress is not None:
            on_progress(start + len(logits), len(tokens))
    return found


def summary(nll: npt.NDArray[np.float64], first: int) -> dict[str, Any]:
    """Perplexities of token likelihoods; nll[i] belongs to position first + 1 + i of the text."""

    def perplexity(values: npt.NDArray[np.float64]) -> float:
        return float(np.exp(values.mean()))

    end = first + 1 + len(nll)
    blocks = []
    for stop in range(first - first % BLOCK + BLOCK, end + BLOCK, BLOCK):
        lower, upper = max(stop - BLOCK, first + 1), min(stop, end)
        if lower < upper:
            blocks.append((upper, perplexity(nll[lower - first - 1 : upper - first - 1])))
    return {
        "all": perplexity(nll),
        "last_2048": perplexity(nll[-2048:]) if len(nll) >= 2048 else None,
        "last_512": perplexity(nll[-512:]) if len(nll) >= 512 else None,
        "blocks": blocks,
    }


def perplexity(
    model: str | os.PathLike[str],
    text: str,
    length: int | None = None,
    *,
    method: str = "lampe",
    threads: int | None = None,
    portable: bool = False,
    on_progress: OnProgress | None = None,
    **choices: Any,
) -> Perplexity:
    """Perplexity of a text's first `length` tokens (None: all of them) under one method.

    method       one of METHODS; "truncate" is plain RoPE given only the last window of them: what
                 a user does without LaMPE
    threads      of the processor; None: all
    portable     take the portable path, also where the devices have fused attention
    on_progress  called with (tokens read, tokens to read)
    choices      factor, local_window, group_size, as in setting()

    Each token is scored given all before it. A text of 8,192 tokens takes as long as reading it,
    and the memory of one batch's logits. Raises LampeError where the text is too short, or the
    model or a value is refused. Compare the ends of texts, and with "truncate" (method: section 6).

    >>> from lampe_gguf import perplexity
    >>> text = open("book.txt", encoding="utf-8").read()
    >>> found = perplexity("model.gguf", text, 128)
    >>> found.tokens, 1 < found.all < 1000
    (128, True)
    """
    from ..backend.llama import LampeLlama

    model = read_file(model)
    if length is None:
        with vocabulary(model) as vocab:
            length = len(vocab.tokenize(text.encode(), True, False))
    if length < 2:
        raise UsageError(f"--lengths has {length}; it must be at least 2 tokens")
    config = model.config
    choices |= model_rope(model)
    how = setting(method, config, length, **choices)
    first = max(0, length - config.window) if method == "truncate" else 0
    options = dict(how.options)
    if threads is not None:
        options |= {"n_threads": threads, "n_threads_batch": threads}
    with vocabulary(model) as vocab:
        # a text that is too short needs no context
        tokens = read_tokens(vocab, text, length)
        read = excerpt(tokens, first, length, beginning(vocab))
    llm = LampeLlama(
        model, lampe=how.lampe, n_ctx=length - first, n_batch=BATCH,
        attention="portable" if portable else None, **options,
    )
    try:
        start = time.monotonic()
        nll = score(llm, read, on_progress)
        seconds = time.monotonic() - start
        return Perplexity(
            method=method,
            parameters=how.parameters | ({"window": config.window} if first else {}),
            tokens=length - first,
            seconds=seconds,
            tokens_per_second=(length - first) / seconds,
            path=llm.path,
            **summary(nll, first),
        )
    finally:
        llm.close()


def check(
    model: str | os.PathLike[str], text: str, jobs: Iterable[tuple[str, int]], **choices: Any
) -> None:
    """Raise what perplexity() would for any of (method, length), before the first is measured."""
    model = read_file(model)
    config = model.config
    rope = model_rope(model)
    longest = 0
    for method, length in jobs:
        setting(method, config, length, **choices, **rope)
        longest = max(longest, length)
    with vocabulary(model) as vocab:
        read_tokens(vocab, text, longest)


def model_rope(model: str | os.PathLike[str]) -> dict[str, Any]:
    """A model's own freq_base and n_rot, as llama.cpp finds them where the file does not say."""
    info = read_file(model).info

    def number(key: str, default: Any) -> Any:
        value = info.values.get(f"{info.architecture}.{key}")
        return value if isinstance(value, (int, float)) and value else default

    n_head = number("attention.head_count", 1)
    head_dim = number("attention.key_length", number("embedding_length", 64) // n_head)
    return {
        "freq_base": float(number("rope.freq_base", 10000.0)),
        "n_rot": int(number("rope.dimension_count", head_dim)),
    }
