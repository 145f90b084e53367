"""Who may use a model, and when: after close(), from two threads, and until cancel()."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama_cpp
import numpy as np
import pytest
from llama_cpp._internals import LlamaContext, LlamaModel

from lampe_gguf.backend.calls import Calls
from lampe_gguf.backend.llama import Cancelled, LampeLlama
from lampe_gguf.errors import LampeError

Tiny = Callable[..., Path]
TOKENS = [int(t) for t in np.random.default_rng(11).integers(3, 350, 400)]

# every public name, in a process of its own: what is wrong ends it with a signal
AFTER_CLOSE = """
import inspect, sys
from lampe_gguf import LampeError, LampeLlama
from lampe_gguf.backend.llama import LampeLlama as C

llm = LampeLlama(sys.argv[1], n_ctx=64)
stream = llm.generate([5, 6], temp=0.0)
held = llm.tokenizer(), llm.tokenizer_, llm._ctx, llm._model, llm._batch
next(stream)
llm.close()
llm.close()
llm.cancel()

def refused(use):
    try:
        use()
    except LampeError as error:
        return str(error) == "the model is closed; open it again"
    except BaseException as error:
        print(repr(error))
    return False

tried = []
for name in dir(C):
    member = inspect.getattr_static(C, name)
    if name.startswith("_") and name != "__call__" or name in ("close", "cancel"):
        continue
    if isinstance(member, property):
        assert refused(lambda: getattr(llm, name)), name
    elif inspect.isfunction(member):
        needs = [p for p in list(inspect.signature(member).parameters.values())[1:]
                 if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        assert refused(lambda: getattr(llm, name)(*["x"] * len(needs))), name
    else:
        continue
    tried.append(name)
assert refused(lambda: next(stream))
assert refused(lambda: held[0].tokenize(b"x"))
assert refused(lambda: held[1].detokenize([5]))
assert refused(lambda: held[2].decode(held[4]))
assert refused(lambda: held[2].kv_cache_clear())
assert refused(lambda: held[3].n_vocab())
assert refused(lambda: held[4].set_batch([1], 0, False))
print(*tried)
"""


def test_every_name_of_a_closed_model_says_so(tiny: Tiny) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AFTER_CLOSE, str(tiny())], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    tried = done.stdout.split()
    assert len(tried) > 30 and {"tokenize", "path", "embed", "save_state", "__call__"} <= {*tried}


@contextmanager
def slow(monkeypatch: pytest.MonkeyPatch, cls: type, name: str) -> Iterator[threading.Event]:
    """The first call of a method waits until the caller is done; the event says that it began."""
    own, begun, go_on = getattr(cls, name), threading.Event(), threading.Event()

    def wait(*arguments: Any, **options: Any) -> Any:
        if not begun.is_set():
            begun.set()
            go_on.wait(20)
        return own(*arguments, **options)

    monkeypatch.setattr(cls, name, wait)
    try:
        yield begun
    finally:
        go_on.set()
        monkeypatch.setattr(cls, name, own)


class Other:
    """Something done in another thread, and what came of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.found: Any = None
        self.raised: BaseException | None = None

        def run() -> None:
            try:
                self.found = work()
            except BaseException as error:
                self.raised = error

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def end(self) -> Other:
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self


def test_a_second_thread_is_refused_while_one_computes(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LampeLlama(tiny(), n_ctx=256)
    with slow(monkeypatch, LlamaContext, "decode") as begun:
        other = Other(lambda: llm.eval(TOKENS[:50]))
        assert begun.wait(20)
        for use in (lambda: llm.eval([5]), lambda: llm.generate([5]), llm.save_state, llm.reset,
                    llm.plan, lambda: llm.create_completion("x")):
            with pytest.raises(LampeError, match="another thread is computing with this model"):
                use()
        # to look is harmless
        assert llm.path == "fused" and llm.n_ctx() == 256 and llm.tokenize(b"word")
        assert llm.plan_for(90) and llm.lampe_config is not None
    assert other.end().raised is None and llm.n_tokens == 50
    llm.eval([5])


def test_many_threads_at_once_end_no_process(tiny: Tiny) -> None:
    llm = LampeLlama(tiny(), n_ctx=256)
    said: list[str] = []

    def use() -> None:
        for _ in range(20):
            try:
                llm.create_completion(TOKENS[:30], max_tokens=3)
                said.append("")
            except LampeError as error:
                said.append(str(error))

    others = [Other(use) for _ in range(4)]
    assert all(other.end().raised is None for other in others)
    assert "" in said and all(s == "" or s.startswith("another thread") for s in said)


def test_a_stream_between_whose_steps_another_thread_reads_ends_with_a_sentence(
    tiny: Tiny
) -> None:
    llm = LampeLlama(tiny(), n_ctx=256)
    stream = llm.create_completion(TOKENS[:20], max_tokens=30, stream=True, temperature=0.0)
    next(stream)
    assert Other(lambda: llm.eval([5, 6])).end().raised is None
    with pytest.raises(LampeError, match="another thread has read something else"):
        list(stream)
    # one that nobody finished keeps nobody out, and who reads in between oneself knows it
    left = llm.generate(TOKENS[:20], temp=0.0)
    next(left)
    llm.eval([7])
    next(left)
    assert Other(lambda: llm.eval([5])).end().raised is None


def test_the_steps_of_a_stream_may_come_from_any_thread(tiny: Tiny) -> None:
    llm = LampeLlama(tiny(), n_ctx=256)
    want = list(itertools.islice(llm.generate(TOKENS[:20], temp=0.0), 6))
    llm.reset()
    stream = llm.generate(TOKENS[:20], temp=0.0)
    assert [Other(lambda: next(stream)).end().found for _ in range(6)] == want


def test_close_from_another_thread_cancels_and_waits(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LampeLlama(tiny(), n_ctx=256)
    with slow(monkeypatch, LlamaContext, "decode") as begun:
        reading = Other(lambda: llm.eval(TOKENS[:200]))
        assert begun.wait(20)
        closing = Other(llm.close)
        time.sleep(0.3)
        assert closing.thread.is_alive()  # it is in use
    assert closing.end().raised is None
    assert isinstance(reading.end().raised, Cancelled)
    with pytest.raises(LampeError, match="closed"):
        llm.n_vocab()


def test_close_from_another_thread_waits_for_who_looks(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LampeLlama(tiny(), n_ctx=64)
    with slow(monkeypatch, LlamaModel, "tokenize") as begun:
        looking = Other(lambda: llm.tokenize(b"abc"))
        assert begun.wait(20)
        closing = Other(llm.close)
        time.sleep(0.3)
        assert closing.thread.is_alive()
    assert closing.end().raised is None and len(looking.end().found) >= 3


def test_close_lets_nobody_in_while_it_waits(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LampeLlama(tiny(), n_ctx=256)
    stream = llm.generate([5, 6], temp=0.0)
    next(stream)
    with slow(monkeypatch, LlamaContext, "decode") as begun:
        reading = Other(lambda: llm.create_completion(TOKENS[:90], max_tokens=3))
        assert begun.wait(20)
        closing = [Other(llm.close) for _ in range(3)]
        while not llm._calls._closing:
            time.sleep(0.01)
        for use in (llm.n_ctx, lambda: llm.tokenize(b"x"), lambda: llm.path, lambda: llm.eval([5]),
                    lambda: next(stream)):
            with pytest.raises(LampeError, match="the model is closed"):
                use()
        assert all(each.thread.is_alive() for each in closing)
    assert isinstance(reading.end().raised, Cancelled)  # and no "closed" from within
    assert [each.end().raised for each in closing] == [None] * 3


def test_many_who_look_cannot_keep_a_model_open(tiny: Tiny) -> None:
    llm = LampeLlama(tiny(), n_ctx=64)

    def look() -> None:
        while True:
            llm.tokenize(b"word " * 200)

    others = [Other(look) for _ in range(4)]
    time.sleep(0.2)
    assert Other(llm.close).end().raised is None
    assert {str(each.end().raised) for each in others} == {"the model is closed; open it again"}


@pytest.mark.parametrize("name", ["save_state", "__call__", "tokenize", "generate"])
def test_no_memory_is_a_sentence(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    llm = LampeLlama(tiny(), n_ctx=64)

    def none(*arguments: Any, **options: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(llama_cpp, "llama_state_get_size", none)
    monkeypatch.setattr(LlamaModel, "tokenize", none)
    monkeypatch.setattr(LlamaContext, "decode", none)
    uses: dict[str, Callable[[], Any]] = {
        "save_state": llm.save_state, "__call__": lambda: llm("x"),
        "tokenize": lambda: llm.tokenize(b"x"), "generate": lambda: next(llm.generate([5])),
    }
    with pytest.raises(LampeError, match="there is no memory for what [a-z_]+[(][)] needs; "):
        uses[name]()
    monkeypatch.undo()
    llm.eval([5])


def test_an_object_that_goes_lets_nothing_out(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = LampeLlama(tiny(), n_ctx=64)

    def interrupted(self: Calls) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Calls, "abandon", interrupted)
    # as at the end of a program, where modules have gone before
    monkeypatch.setattr(sys.modules[LampeLlama.__module__], "contextlib", None)
    try:
        llm.__del__()
    except KeyboardInterrupt:  # which would end the tests
        pytest.fail("it went out")


def test_close_from_inside_a_call_is_refused(tiny: Tiny) -> None:
    llm = LampeLlama(tiny(), n_ctx=256, n_batch=32)
    llm.progress = lambda done, total: llm.close()
    with pytest.raises(LampeError, match="close it when that is over"):
        llm.eval(TOKENS[:100])
    llm.progress = None
    llm.eval(TOKENS[:5])
    llm.close()


@pytest.mark.parametrize("name", ["create_completion", "__call__", "create_chat_completion",
                                  "stream"])
def test_cancel_before_reading_begins(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    llm = LampeLlama(tiny(), n_ctx=512)
    uses: dict[str, Callable[[], Any]] = {
        "create_completion": lambda: llm.create_completion("word " * 20, max_tokens=2),
        "__call__": lambda: llm("word " * 20, max_tokens=2),
        "create_chat_completion": lambda: llm.create_chat_completion(
            [{"role": "user", "content": "word"}], max_tokens=2),
        "stream": lambda: list(llm.create_completion("word " * 20, max_tokens=2, stream=True)),
    }
    with slow(monkeypatch, LlamaModel, "tokenize") as begun:
        other = Other(uses[name])
        assert begun.wait(20)
        llm.cancel()
    assert isinstance(other.end().raised, Cancelled)
    assert llm.n_tokens == 0
    uses[name]()  # the next call is not meant


def test_cancel_between_the_making_of_a_stream_and_its_first_step(tiny: Tiny) -> None:
    llm = LampeLlama(tiny(), n_ctx=512)
    stream = llm.create_completion("word", max_tokens=2, stream=True)
    llm.cancel()
    with pytest.raises(Cancelled):
        next(stream)
    assert len(list(llm.create_completion("word", max_tokens=2, stream=True))) >= 2


def test_cancel_while_embedding(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = LampeLlama(tiny(), n_ctx=256, embedding=True)
    for cls, name in ((LlamaModel, "tokenize"), (LlamaContext, "decode")):
        with slow(monkeypatch, cls, name) as begun:
            other = Other(lambda: llm.embed("word"))
            assert begun.wait(20)
            llm.cancel()
        assert isinstance(other.end().raised, Cancelled), name
    assert len(llm.embed("word")) > 0


def test_what_a_cancelled_embedding_left_is_not_taken_for_what_was_read(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LampeLlama(tiny(), n_ctx=256, embedding=True)
    llm.eval(TOKENS[:20])
    with slow(monkeypatch, LlamaContext, "decode") as begun:
        other = Other(lambda: llm.embed("word"))
        assert begun.wait(20)
        llm.cancel()
    assert isinstance(other.end().raised, Cancelled)
    assert llm.n_tokens == 0  # so that the next prompt is read from its beginning


def test_cancel_never_hits_the_next_call() -> None:
    calls = Calls()
    # cancel() is called in the first call and gets no further before the second has begun
    with calls._changed:
        with calls.computing() as first:
            other = Other(calls.cancel)
            time.sleep(0.2)
            calls.end(first)
        with calls.computing():
            assert other.thread.is_alive()
            second = calls._call
    other.end()
    assert first.cancelled and second is not None and not second.cancelled
    assert not calls.abort.value


def test_cancel_just_before_the_end_of_a_call_ends_with_it(tiny: Tiny) -> None:
    llm = LampeLlama(tiny(), n_ctx=256, n_batch=32)
    llm.progress = lambda done, total: llm.cancel() if done == total else None
    llm.eval(TOKENS[:50])
    llm.progress = None
    llm.eval(TOKENS[:50])
    assert llm.n_tokens == 100
