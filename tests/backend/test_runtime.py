"""LampeLlama: how it opens models, progress, cancelling, and what it keeps."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_config
from llama_cpp._internals import LlamaContext
from stock_side import all_logits

from lampe_gguf.backend import api as backend
from lampe_gguf.backend.llama import Cancelled, LampeLlama
from lampe_gguf.backend.vocabulary import read_tokens
from lampe_gguf.errors import LampeError
from lampe_gguf.evaluate.perplexity import negative_log_likelihood, score, summary
from lampe_gguf.model.presets import default_config

Tiny = Callable[..., Path]
TOKENS = [int(t) for t in np.random.default_rng(11).integers(3, 350, 400)]


def test_a_converted_file_needs_nothing_else(tiny: Tiny) -> None:
    llm = LampeLlama(tiny())
    assert llm.path == "fused" and llm.n_ctx() == 512
    assert llm.lampe_config == tiny_config()


def test_a_plain_file_with_a_config_is_the_converted_one(tiny: Tiny) -> None:
    config = tiny_config()
    given = LampeLlama(tiny("plain.gguf", lampe=None), lampe=config, n_ctx=256)
    converted = LampeLlama(tiny(), n_ctx=256)
    np.testing.assert_array_equal(
        all_logits(given, TOKENS[:200]), all_logits(converted, TOKENS[:200])
    )


def test_auto_is_what_convert_would_write(tiny: Tiny) -> None:
    llm = LampeLlama(tiny(lampe=None), lampe="auto")
    want = default_config(32)
    assert llm.lampe_config is not None
    assert llm.lampe_config.plan(100) == want.plan(100)
    assert llm.n_ctx() == 256  # 128 rounded up by llama.cpp


def test_a_config_wins_over_the_file(tiny: Tiny) -> None:
    llm = LampeLlama(tiny(), lampe=tiny_config(local_window=5))
    assert llm.lampe_config is not None and llm.lampe_config.local_window == 5


def test_plain_and_off_are_plain(tiny: Tiny) -> None:
    assert LampeLlama(tiny("p.gguf", lampe=None), n_ctx=64).path == "off"
    off = LampeLlama(tiny(), lampe=False, n_ctx=64)
    assert off.path == "off" and off.plan() is None and off.lampe_config is None


def test_off_is_not_bound_by_the_lampe_context_length(tiny: Tiny) -> None:
    path = tiny()
    assert LampeLlama(path, lampe=False, n_ctx=1000).n_ctx() == 1024
    assert LampeLlama(path, lampe=False).n_ctx() == 256  # the window of 32, as llama.cpp pads it
    with pytest.raises(LampeError, match="512"):
        LampeLlama(path, n_ctx=1000)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LampeError, match="there is no file"):
        LampeLlama(tmp_path / "nosuch.gguf")


@pytest.mark.parametrize(("options", "words"), [
    ({"lampe": "bogus"}, "lampe is 'bogus'; give a LampeConfig"),
    ({"lampe": True}, "lampe is True"),
    ({"n_ctx": -5}, "n_ctx is -5"),
])
def test_values_of_the_wrong_kind(tiny: Tiny, options: dict[str, Any], words: str) -> None:
    with pytest.raises(LampeError, match=words):
        LampeLlama(tiny(), **options)


def test_progress_counts_up_to_the_end(tiny: Tiny) -> None:
    seen: list[tuple[int, int]] = []
    llm = LampeLlama(tiny(), n_batch=64, progress=lambda done, total: seen.append((done, total)))
    llm.eval(TOKENS[:150])
    assert seen == [(64, 150), (128, 150), (150, 150)]


@pytest.mark.alone
def test_cancel_from_another_thread_ends_within_a_batch(smollm2_path: Path) -> None:
    # one batch that takes many seconds, so that a busy machine does not decide
    llm = LampeLlama(smollm2_path, lampe="auto", n_ctx=4096, n_batch=4096, n_ubatch=4096)
    tokens = llm.tokenize(b"All work and no play makes Jack a dull boy. " * 300)[:3500]
    times: list[float] = []

    def stop() -> None:
        times.append(time.monotonic())
        llm.cancel()

    timer = threading.Timer(1.0, stop)
    timer.start()
    with pytest.raises(Cancelled):
        llm.eval(tokens)
    assert time.monotonic() - times[0] < 3.0
    # usable, and what it holds is what it says
    kept = llm.n_tokens
    assert kept < len(tokens)
    got = all_logits(llm, tokens[kept : kept + 40])
    fresh = LampeLlama(smollm2_path, lampe="auto", n_ctx=4096)
    fresh.eval(tokens[:kept]) if kept else None
    want = all_logits(fresh, tokens[kept : kept + 40])
    assert (got.argmax(1) == want.argmax(1)).mean() > 0.9


def test_ctrl_c_leaves_nothing_running(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LampeLlama(smollm2_path, lampe="auto", n_ctx=2048)
    tokens = llm.tokenize(b"All work and no play makes Jack a dull boy. " * 150)[:1500]
    events: list[str] = []
    original = LlamaContext.decode

    def watched(*arguments: Any) -> None:
        events.append("begins")
        try:
            original(*arguments)
        finally:
            events.append("ends")

    monkeypatch.setattr(LlamaContext, "decode", watched)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        llm.eval(tokens)
    assert events and events[-1] == "ends"
    assert llm.n_tokens % 512 == 0 and llm.n_tokens < len(tokens)
    llm.eval(tokens[llm.n_tokens :][:20])


def test_cancel_while_nothing_runs_does_nothing(tiny: Tiny) -> None:
    llm = LampeLlama(tiny())
    llm.cancel()
    llm.eval(TOKENS[:50])
    assert llm.n_tokens == 50


def test_cancel_stops_generation(tiny: Tiny) -> None:
    llm = LampeLlama(tiny())
    count = 0
    with pytest.raises(Cancelled):
        for _ in llm.generate(TOKENS[:20], temp=0.0):
            count += 1
            if count == 3:
                llm.cancel()
    assert count == 3
    llm.eval(TOKENS[:10])


def test_a_cancelled_stream_that_nobody_finished_cancels_nothing_else(tiny: Tiny) -> None:
    llm = LampeLlama(tiny())
    left = llm.generate(TOKENS[:20], temp=0.0)
    next(left)
    llm.cancel()
    assert len(list(itertools.islice(llm.generate(TOKENS[:30], temp=0.0), 3))) == 3
    again = llm.generate(TOKENS[:20], temp=0.0)
    next(again)
    llm.cancel()
    with pytest.raises(Cancelled):
        next(again)
    llm.eval(TOKENS[:10])
    left.close()


def test_what_was_cancelled_is_read_again_before_going_on(tiny: Tiny) -> None:
    llm, said = LampeLlama(tiny()), []
    with pytest.raises(Cancelled):
        for token in llm.generate(TOKENS[:20], temp=0.0):
            said.append(token)
            if len(said) == 4:
                llm.cancel()
    read: list[int] = []
    kept = TOKENS[:20] + said[: llm.n_tokens - 20]
    original = type(llm).eval

    class Counting(LampeLlama):
        def eval(self, tokens: list[int]) -> None:
            read.append(len(tokens))
            original(self, tokens)

    llm.__class__ = Counting
    assert next(iter(llm.generate(kept, temp=0.0))) == said[llm.n_tokens - 20]
    assert read == [1]


def test_prompt_policy_announces_whole_prompts(tiny: Tiny) -> None:
    config = tiny_config(length_policy="prompt")
    path = tiny(lampe=config)
    llm = LampeLlama(path, n_batch=32)
    llm.eval(TOKENS[:100])
    by_hand = LampeLlama(path, n_batch=128)
    backend.set_prompt_length(by_hand.ctx, 100)
    one, two = all_logits(llm, TOKENS[100:101]), all_logits(by_hand, TOKENS[:101])[100:]
    assert np.abs(one - two).max() < 1e-2 * two.std()
    assert llm.plan() == config.plan(101)
    # a short prompt after a long one is not planned with the long one's length
    llm.reset()
    llm.eval([TOKENS[0]])
    assert llm.plan() == config.plan(1)


def test_an_announcement_outlives_what_was_rewound_before_it(tiny: Tiny) -> None:
    config = tiny_config(length_policy="prompt")
    llm = LampeLlama(tiny(lampe=config), n_batch=16)
    llm.eval(TOKENS[:100])
    llm.n_tokens = 50
    plans: list[Any] = []
    llm.progress = lambda done, total: plans.append(llm.plan())
    llm.eval(TOKENS[:30])
    assert plans == [config.plan(80), config.plan(80)]


def test_reset_forgets_the_plan_and_the_announced_length(tiny: Tiny) -> None:
    config = tiny_config(length_policy="prompt")
    llm = LampeLlama(tiny(lampe=config), n_batch=32)
    llm.eval(TOKENS[:100])
    assert llm.plan() == config.plan(100)
    llm.reset()
    assert llm.plan() is None
    # the backend's own announcement, which a program that calls it without LampeLlama meets
    llm._batch.set_batch(batch=TOKENS[:2], n_past=0, logits_all=False)
    llm._ctx.decode(llm._batch)
    assert backend.get_sequence_plan(llm.ctx) == config.plan(2)


def test_a_cleared_memory_has_no_plan_whoever_clears_it(tiny: Tiny) -> None:
    config = tiny_config(length_policy="prompt")
    llm = LampeLlama(tiny(lampe=config), n_batch=32)
    for clear in (llm._ctx.kv_cache_clear, lambda: llm._ctx.kv_cache_seq_rm(-1, 0, -1)):
        llm.n_tokens = 0
        llm.eval(TOKENS[:100])
        clear()
        assert llm.plan() is None
        llm._batch.set_batch(batch=TOKENS[:2], n_past=0, logits_all=False)
        llm._ctx.decode(llm._batch)
        assert llm.plan() == config.plan(2)


def test_the_prefix_of_a_conversation_is_kept(tiny: Tiny) -> None:
    read: list[int] = []
    llm = LampeLlama(tiny(), progress=lambda done, total: read.append(total))
    first = TOKENS[:120]
    next(iter(llm.generate(first, temp=0.0)))
    next(iter(llm.generate(first + TOKENS[200:230], temp=0.0)))
    assert read == [120, 30]


def test_a_full_context_says_so(tiny: Tiny) -> None:
    llm = LampeLlama(tiny(), n_ctx=256)
    with pytest.raises(LampeError, match="context is full|beyond"):
        llm.eval(TOKENS[:300])


def test_scores_are_log_likelihoods(tiny: Tiny) -> None:
    llm = LampeLlama(tiny(), n_ctx=512)
    tokens = TOKENS[:100]
    got = score(llm, tokens)
    logits = all_logits(LampeLlama(tiny("b.gguf"), n_ctx=512), tokens).astype(np.float64)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    want = -np.log(probability[np.arange(99), tokens[1:]])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert llm.n_tokens == 100


def test_scoring_can_be_cancelled(tiny: Tiny) -> None:
    llm = LampeLlama(tiny(), n_ctx=512, n_batch=32)
    with pytest.raises(Cancelled):
        score(llm, TOKENS[:200], lambda done, total: llm.cancel() if done == 64 else None)
    assert llm.n_tokens == 64
    fresh = score(LampeLlama(tiny("b.gguf"), n_ctx=512, n_batch=32), TOKENS[:100])
    np.testing.assert_allclose(score(llm, TOKENS[:100]), fresh, rtol=1e-5)


def test_text_with_long_tokens_is_read_far_enough(tiny: Tiny) -> None:
    class Lines:
        """A tokenizer with one token for a line of 99 characters."""

        def tokenize(self, text: bytes, add_bos: bool, special: bool) -> list[int]:
            return list(range(text.count(b"\n")))

    text = ("-" * 99 + "\n") * 50
    assert len(read_tokens(Lines(), text, 40)) == 40
    with pytest.raises(LampeError, match="50 tokens.*60"):
        read_tokens(Lines(), text, 60)


def test_log_likelihood_of_huge_logits_is_finite() -> None:
    logits = np.array([[1e4, 0.0], [-1e4, 0.0]], dtype=np.float32)
    got = negative_log_likelihood(logits, np.array([0, 0]))
    np.testing.assert_allclose(got, [0.0, 1e4])


def test_summary_blocks_by_position_in_the_text() -> None:
    nll = np.log(np.repeat([2.0, 4.0, 8.0], [2047, 2048, 100]))
    found = summary(nll, 0)
    assert [(end, round(value, 6)) for end, value in found["blocks"]] == [
        (2048, 2.0), (4096, 4.0), (4196, 8.0)
    ]
    assert found["last_512"] == pytest.approx(np.exp((412 * np.log(4) + 100 * np.log(8)) / 512))
    later = summary(np.log(np.full(300, 3.0)), 4000)
    assert [end for end, _ in later["blocks"]] == [4096, 4301]


def test_loading_is_reported_and_stops_with_what_that_raises(smollm2_path: Path) -> None:
    parts: list[float] = []
    LampeLlama(smollm2_path, n_ctx=64, on_load=parts.append).close()
    assert len(parts) > 100 and parts == sorted(parts) and parts[0] == 0 and parts[-1] == 1

    def fail(part: float) -> None:
        if part > 0.5:
            raise ZeroDivisionError(part)

    with pytest.raises(ZeroDivisionError, match="0.5"):
        LampeLlama(smollm2_path, n_ctx=64, on_load=fail)


@pytest.mark.alone
def test_ctrl_c_stops_a_model_that_loads(smollm2_path: Path) -> None:
    import _thread

    times: list[float] = []

    def slowly(part: float) -> None:
        if len(times) == 10:
            _thread.interrupt_main()
        times.append(time.monotonic())
        time.sleep(0.1)

    with pytest.raises(KeyboardInterrupt):
        LampeLlama(smollm2_path, n_ctx=64, on_load=slowly)
    assert 10 < len(times) < 15  # of hundreds
    assert time.monotonic() - times[10] < 0.5


def test_ctrl_c_is_not_lost_while_a_model_loads(tiny: Tiny) -> None:
    import _thread

    from llama_cpp import _logger, llama_cpp

    lines: list[int] = []

    @llama_cpp.llama_log_callback
    def log(level: int, text: bytes, user_data: object) -> None:
        lines.append(level)
        if len(lines) == 1:
            _thread.interrupt_main()

    path = tiny()
    llama_cpp.llama_log_set(log, None)
    try:
        with pytest.raises(KeyboardInterrupt):
            LampeLlama(path, n_ctx=64)
    finally:
        llama_cpp.llama_log_set(_logger.llama_log_callback, None)
    assert lines
