"""Several machines, on one: what is split over peers is what one machine computes, and a peer that
is of another build, is lost or hangs is an error in bounded time."""

from __future__ import annotations

import copy
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rpc_peers
from conftest import call, tiny_config
from measure.rpc_traffic import PLAN, RUN, RUNS, SET, Shape, count_runs, token_traffic
from rpc_peers import Peer, Tap, free_port, peer, stand_in, timeout_of
from time_limit import time_limit

from lampe_gguf import LampeLlama
from lampe_gguf.errors import LampeError
from lampe_gguf.readings.state import NoState, write_state

Tiny = Callable[..., Path]

CHECKOUT = Path(__file__).parents[2]
BUILD = int((CHECKOUT / "patches" / "VERSION").read_text(encoding="utf-8"))
PROTOCOL = (7, 0, 1)

pytestmark = pytest.mark.skipif(not rpc_peers.PROGRAM.exists(),
                                reason="built without ggml-rpc-server (GGML_RPC or --no-server)")


@pytest.fixture(scope="module")
def peers() -> Iterator[tuple[Peer, Peer]]:
    with peer() as first, peer() as second:
        yield first, second


def opened(path: Path, **options: Any) -> LampeLlama:
    options = {"n_ctx": 512, "n_threads": rpc_peers.THREADS,
               "n_threads_batch": rpc_peers.THREADS, **options}
    return LampeLlama(path, **options)


def logits(llm: LampeLlama, tokens: list[int]) -> np.ndarray:
    """Of the last eight tokens, given one by one after the others in a batch. [8, n_vocab]"""
    llm.reset()
    llm.eval(tokens[:-8])
    found = []
    for token in tokens[-8:]:
        llm.eval([token])
        found.append(np.ctypeslib.as_array(llm._ctx.get_logits(), shape=(llm.n_vocab(),)).copy())
    return np.array(found)


TOKENS = [int(token) for token in np.random.default_rng(0).integers(3, 200, 120)]


@pytest.mark.parametrize("attention", ["fused", "portable"])
def test_two_peers_compute_what_one_machine_does(
    tiny: Tiny, peers: tuple[Peer, Peer], attention: Any
) -> None:
    path = tiny(n_layer=4)
    with opened(path, attention=attention) as alone:
        expected = logits(alone, TOKENS)
    servers = [each.endpoint for each in peers]
    with opened(path, attention=attention, rpc_servers=servers) as llm:
        assert (llm.path, llm.path_reason) == (
            attention, "" if attention == "fused" else "the portable path was asked for")
        found = logits(llm, TOKENS)
    assert np.ptp(expected) > 1
    assert np.array_equal(found, expected)


def test_a_real_model_is_the_same_on_two_peers(
    smollm2_path: Path, peers: tuple[Peer, Peer]
) -> None:
    options: dict[str, Any] = {"lampe": "auto", "n_ctx": 1024}
    with opened(smollm2_path, **options) as alone:
        expected = logits(alone, TOKENS)
    with opened(smollm2_path, **options, rpc_servers=[each.endpoint for each in peers]) as llm:
        found = logits(llm, TOKENS)
    assert np.array_equal(found, expected)


def test_a_peer_whose_device_lacks_the_operator_is_given_others(
    tiny: Tiny, peers: tuple[Peer, Peer]
) -> None:
    path = tiny(n_layer=4)
    with opened(path, attention="portable") as alone:
        expected = logits(alone, TOKENS)
    tap = Tap(peers[1].endpoint, has_operator=False)
    with opened(path, rpc_servers=[peers[0].endpoint, tap.endpoint]) as llm:
        assert llm.path == "portable"
        assert re.fullmatch(r"RPC\d+ has no fused attention with LaMPE for this model",
                            llm.path_reason)
        assert np.array_equal(logits(llm, TOKENS), expected)
    tap.close()


def test_the_build_that_peers_compare_is_the_one_of_this_source() -> None:
    header = CHECKOUT / "patches/overlay/vendor/llama.cpp/ggml/src/ggml-rpc/rpc-build.h"
    found = re.search(r"#define GGML_LAMPE_BUILD (\d+)", header.read_text(encoding="utf-8"))
    assert found and int(found[1]) == BUILD


@pytest.mark.parametrize("version, said", [
    ((*PROTOCOL[:2], 0, 0), f"llama.cpp without LaMPE, and this is build {BUILD}"),
    ((*PROTOCOL, BUILD - 1), f"build {BUILD - 1} of llama.cpp with LaMPE"),
    ((*PROTOCOL, BUILD + 1), f"build {BUILD + 1} of llama.cpp with LaMPE"),
    ((8, 0, 0, BUILD), "another version of the protocol"),
])
def test_a_peer_of_another_build_is_refused_before_anything_is_sent(
    tiny: Tiny, version: tuple[int, int, int, int], said: str
) -> None:
    path = tiny()
    with stand_in(version) as stranger, timeout_of(5):
        with pytest.raises(LampeError, match=said), time_limit(20):
            opened(path, rpc_servers=[stranger.endpoint])
        assert len(stranger.got) == rpc_peers.HELLO_BYTES


def test_where_nothing_listens_that_is_said(tiny: Tiny) -> None:
    path, server = tiny(), f"{rpc_peers.HOST}:{free_port()}"
    said = f"the RPC server {server} cannot be used: nothing answers there"
    with pytest.raises(LampeError, match=said):
        opened(path, rpc_servers=[server])
    for command in (("ask", path, "a?"), ("serve", path, "--port", 0), ("bench", path)):
        done = call(*command, "--rpc", server)
        assert done.returncode == 1 and done.stderr.count(said) == 1, done.stderr


def test_a_peer_that_never_answers_is_an_error(tiny: Tiny) -> None:
    path = tiny()
    with stand_in(None) as silent, time_limit(25):
        with pytest.raises(LampeError, match="did not answer in time"):
            opened(path, rpc_servers=[silent.endpoint])


@pytest.mark.parametrize("given", ["nowhere", "host:", "host:99999", "[::1]:80", "a/b:1"])
def test_what_is_no_host_and_port_is_refused(tiny: Tiny, given: str) -> None:
    path = tiny()
    with pytest.raises(LampeError, match="give HOST:PORT"):
        opened(path, rpc_servers=[given])
    done = call("ask", path, "a?", "--rpc", given)
    assert done.returncode == 2 and "give HOST:PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_killed_peer_is_an_error_and_all_else_lives_on(
    tiny: Tiny, peers: tuple[Peer, Peer], tmp_path: Path
) -> None:
    path = tiny(n_layer=4)
    port = free_port()
    with opened(path) as here, opened(path, rpc_servers=[peers[0].endpoint]) as elsewhere:
        expected = logits(here, TOKENS)
        with peer(port) as other:
            llm = opened(path, rpc_servers=[peers[1].endpoint, other.endpoint])
            assert np.array_equal(logits(llm, TOKENS), expected)
            other.kill()
            with time_limit(10):
                for _ in range(2):  # it stays an error
                    with pytest.raises(LampeError, match="cannot be used: the connection was clo"):
                        llm.eval([5])
        assert np.array_equal(logits(here, TOKENS), expected)
        assert np.array_equal(logits(elsewhere, TOKENS), expected)
        with peer(port) as back, time_limit(60):
            with pytest.raises(LampeError):  # what lay there is gone, though the peer is back
                llm.eval([5])
            with pytest.raises(LampeError):
                opened(path, rpc_servers=[f"{rpc_peers.HOST}:{free_port()}"])
            llm.close()
            with opened(path, rpc_servers=[peers[1].endpoint, back.endpoint]) as again:
                assert np.array_equal(logits(again, TOKENS), expected)


def test_no_state_is_saved_of_what_is_lost(tiny: Tiny, tmp_path: Path) -> None:
    kept = tmp_path / "state"
    with peer() as other, opened(tiny(n_layer=4), rpc_servers=[other.endpoint]) as llm:
        llm.eval(TOKENS[:16])
        write_state(llm, kept)
        assert llm.save_state().llama_state_size > 0
        other.kill()
        with time_limit(10):
            assert llm.save_state().llama_state_size == 0
            with pytest.raises(NoState):
                write_state(llm, kept)


def test_a_peer_that_hangs_is_an_error(tiny: Tiny) -> None:
    with peer() as other, timeout_of(2):
        with opened(tiny(n_layer=4), rpc_servers=[other.endpoint]) as llm:
            llm.eval(TOKENS[:16])
            other.process.send_signal(signal.SIGSTOP)
            start = time.monotonic()
            with pytest.raises(LampeError, match="did not answer in time"), time_limit(20):
                llm.eval([5])
            assert time.monotonic() - start > 1.5


def test_contexts_share_a_peer_and_outlive_one_another(tiny: Tiny) -> None:
    """A peer keeps the last graph that it computed, and forgets it with any buffer."""
    path = tiny(n_layer=4)
    with opened(path) as here:
        expected = logits(here, TOKENS)
    with peer() as other:
        one = opened(path, rpc_servers=[other.endpoint])
        with opened(path, rpc_servers=[other.endpoint]) as two:
            for llm in (one, two):
                llm.eval(TOKENS[:-8])
            found = []
            for number, token in enumerate(TOKENS[-8:]):
                if number < 4:
                    one.eval([token])
                elif number == 4:
                    one.close()
                two.eval([token])
                found.append(np.ctypeslib.as_array(
                    two._ctx.get_logits(), shape=(two.n_vocab(),)).copy())
            assert np.array_equal(np.array(found), expected)


@pytest.mark.parametrize("kind", ["off", "lampe"])
def test_a_token_costs_what_the_formula_says_and_less_than_stock(
    tiny: Tiny, peers: tuple[Peer, Peer], kind: str
) -> None:
    """Keys and values stay with their layers, or it would not hold to the byte."""
    shape = Shape(n_embd=256, n_vocab=384, n_peers=2)
    taps = [Tap(each.endpoint) for each in peers]
    with opened(tiny(n_layer=4), lampe=None if kind == "lampe" else False,
                rpc_servers=[tap.endpoint for tap in taps]) as llm:
        llm.eval(TOKENS)
        llm.eval([5])  # from here on the peers keep the graph
        for tap in taps:
            tap.reset()
        begin = llm.n_tokens
        for token in range(10, 20):
            llm.eval([token])
        found = [copy.deepcopy(tap.traffic) for tap in taps]
    said = [token_traffic(shape, pos, 256, kind) for pos in range(begin, begin + 10)]
    stock = [token_traffic(shape, pos, 256, "stock") for pos in range(begin, begin + 10)]
    assert sum(each.bytes_sent for each in found) == sum(each.sent for each in said)
    assert sum(each.received for each in found) == sum(each.received for each in said)
    assert sum(each.round_trips for each in found) == sum(each.round_trips for each in said) == 20
    # the plan is a message more, and what describes its tensor most of it
    plans = 20 * (PLAN + SET + RUNS + 2 * RUN) if kind == "lampe" else 0
    assert sum(each.sent for each in said) < sum(each.sent for each in stock) + plans
    for tap in taps:
        tap.close()


@pytest.mark.parametrize("data, runs", [
    (np.zeros(256, np.uint32), 1),
    (np.arange(5, 261, dtype=np.int32), 1),
    (np.concatenate([np.arange(100), np.full(50, -1)]).astype(np.int32), 2),
    (np.array([7], np.uint32), 1),
    (np.array([1, 2, 3, 9, 9, 9, 4], np.uint32), 3),
])
def test_runs_are_counted_as_they_are_sent(data: Any, runs: int) -> None:
    assert count_runs(data) == runs


def test_ask_computes_with_peers(tiny: Tiny, peers: tuple[Peer, Peer], tmp_path: Path) -> None:
    path, text = tiny(n_layer=4), tmp_path / "text.txt"
    text.write_text("The sea was calm. " * 8, encoding="utf-8")
    taps = [Tap(each.endpoint) for each in peers]
    arguments = ("ask", path, "What was calm?", "--doc", text, "--max-tokens", 8,
                 "--temperature", 0, "--threads", rpc_peers.THREADS)
    alone = call(*arguments)
    done = call(*arguments, "--rpc", ",".join(tap.endpoint for tap in taps))
    assert (done.returncode, done.stdout) == (0, alone.stdout), done.stderr
    for tap in taps:
        assert tap.traffic.messages["graph"] > 0
        tap.close()


def namespaces() -> bool:
    """Whether this system lets us make hosts of our own."""
    try:
        made = subprocess.run(["ip", "netns", "add", "lampe-try"], capture_output=True)
        subprocess.run(["ip", "netns", "del", "lampe-try"], capture_output=True)
    except FileNotFoundError:
        return False
    return made.returncode == 0


@pytest.mark.skipif(not namespaces(), reason="needs root, network namespaces and iproute2")
def test_a_cut_cable_is_an_error(tiny: Tiny) -> None:
    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    name, here, there = "lampe-peer", "10.231.7.1", "10.231.7.2"
    path = tiny(n_layer=4)
    ip("netns", "add", name)
    try:
        ip("link", "add", "lampe-a", "type", "veth", "peer", "name", "lampe-b")
        ip("link", "set", "lampe-b", "netns", name)
        ip("addr", "add", f"{here}/24", "dev", "lampe-a")
        ip("link", "set", "lampe-a", "up")
        ip("-n", name, "addr", "add", f"{there}/24", "dev", "lampe-b")
        ip("-n", name, "link", "set", "lampe-b", "up")
        before = ["ip", "netns", "exec", name]
        with peer(50052, host=there, before=before) as other, time_limit(120):
            with opened(path, rpc_servers=[other.endpoint]) as llm, opened(path) as alone:
                llm.eval(TOKENS[:16])
                ip("-n", name, "link", "set", "lampe-b", "down")
                start = time.monotonic()
                with pytest.raises(LampeError, match="it cannot be reached any more|was closed"):
                    llm.eval([5])
                assert time.monotonic() - start < 60
                alone.eval([5])
    finally:
        ip("netns", "del", name)


def test_the_map_of_the_tests_compresses() -> None:
    assert tiny_config().context_length > len(TOKENS) > tiny_config().window
