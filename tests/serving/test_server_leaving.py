"""Whoever leaves makes room: a client its slot, the program its server."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, tiny_config
from serving_side import Client, require_server, served
from tiny_model import make_tiny_model

SOON = 2.0  # seconds
PROMPT = "x" * 30000


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads 30,000 tokens for some seconds."""
    require_server()
    config = tiny_config(window=64, context_length=32768, max_mapping_length=60.0)
    return make_tiny_model(tmp_path_factory.mktemp("slow") / "slow.gguf", window=64, lampe=config,
                           n_layer=4)


def is_free(client: Client) -> bool:
    return not any(slot["is_processing"] for slot in client.get("/slots"))


def until(is_so: Callable[[], bool], seconds: float) -> float:
    """Seconds until something is so; AssertionError where it takes too long."""
    start = time.monotonic()
    while not is_so():
        assert time.monotonic() - start < seconds, f"it is not so after {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - start


def begun(client: Client, prompt: str) -> tuple[Iterator[Any], dict[str, int]]:
    """The events of an answer whose prompt is being read, and how far it is read."""
    events = client.stream("/completion", prompt=prompt, n_predict=4, return_progress=True)
    progress = next(events)["prompt_progress"]
    while not progress["processed"]:
        progress = next(events)["prompt_progress"]
    assert progress["processed"] < progress["total"] / 2
    return events, progress


@pytest.mark.alone
def test_a_client_that_leaves_while_its_prompt_is_read_frees_the_slot(slow: Path) -> None:
    with served(slow, slots=1) as client:
        events, progress = begun(client, PROMPT)
        assert not is_free(client)
        events.close()  # type: ignore[attr-defined]
        left = until(lambda: is_free(client), SOON)
        # it had more to read, and each token takes longer than the ones before it
        unread = (progress["total"] - progress["processed"]) / progress["processed"]
        assert unread * progress["time_ms"] / 1000 > 2 * left
        # somebody else has the slot
        start = time.monotonic()
        client.complete("y", 1, cache_prompt=False)
        assert time.monotonic() - start < SOON


class Started:
    """`lampe-gguf serve` in a process of its own, until it says that it serves."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, "serve", *map(str, arguments)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if "Ctrl-C ends it" in line:
                break
        found = re.search(r"http://[\d.]+:\d+", "".join(self.said))
        if not found:
            self.process.wait()
            pytest.fail("".join(self.said) + self.process.stderr.read())  # type: ignore[union-attr]
        self.url = found[0]

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def test_what_it_says_and_the_protocol(tiny: Callable[..., Path]) -> None:
    require_server()
    with Started(tiny(lampe=None), "--port", 0, "--threads", 1) as started:
        said = "".join(started.said)
        assert "context   128 tokens for each of 2 conversations" in said, said
        assert "keys and values under 1 MB, earlier prompts up to " in said, said
        assert f"OPENAI_BASE_URL={started.url}/v1 OPENAI_API_KEY=none" in said
        assert "attention fused\n" in said
        client = Client(started.url, 0)
        answer = client.post("/v1/chat/completions", max_tokens=4,
                             messages=[{"role": "user", "content": "How long is it?"}])
        assert answer["usage"]["completion_tokens"] == 4
        assert client.get("/v1/models")["data"][0]["id"] == "tiny.gguf"
        started.process.send_signal(signal.SIGINT)
        _, err = started.process.communicate(timeout=15)
        assert started.process.returncode == 0 and err.endswith("stopped\n")
        assert "carries no LaMPE metadata" in err
        assert not started.answers()


@pytest.mark.alone
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_ending_cuts_the_answer_under_way(slow: Path, number: int, code: int) -> None:
    with Started(slow, "--port", 0, "--threads", 1, "--parallel", 1) as started:
        events, _ = begun(Client(started.url, 0), PROMPT)
        start = time.monotonic()
        started.process.send_signal(number)
        started.process.communicate(timeout=15)
        assert started.process.returncode == code
        assert time.monotonic() - start < 5.0  # its client is still there
        assert not started.answers()
        with pytest.raises(Exception):  # noqa: B017  (whichever way it sees that it is cut)
            assert not [each for each in events if each.get("stop")]
            raise EOFError


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_the_server_does_not_outlive_a_program_that_is_killed(tiny: Callable[..., Path]) -> None:
    require_server()
    with Started(tiny(), "--port", 0, "--threads", 1) as started:
        started.process.kill()
        until(lambda: not started.answers(), 5.0)


def test_what_stands_after_two_dashes_is_llama_servers(tiny: Callable[..., Path]) -> None:
    require_server()
    with Started(tiny(), "--port", 0, "--threads", 1, "--parallel", 1, "--", "--alias", "other",
                 "--n-predict", 3) as started:
        client = Client(started.url, 0)
        assert client.get("/v1/models")["data"][0]["id"] == "other"
        assert len(client.post("/completion", prompt="a", ignore_eos=True,
                               return_tokens=True)["tokens"]) == 3


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize("arguments, code, words", [
    (["{m}", "--port", "{taken}"], 1, "port {taken} is in use by another program; give another"),
    (["nosuch.gguf"], 1, "cannot open nosuch.gguf"),
    (["{m}", "--host", "0.0.0.0"], 2, "set a key with LLAMA_API_KEY"),
    (["{m}", "--host", "192.0.2.1", "--api-key", "x"], 1, "cannot listen on 192.0.2.1"),
    (["{m}", "--ctx", "4096"], 2, "--ctx is 4,096 and this model supports 512 tokens"),
    (["{m}", "--", "--port", "81"], 2, "give --port before the --"),
    (["{m}", "--", "--host=0.0.0.0"], 2, "give --host before the --"),
    (["{m}", "{m}"], 2, "is no option"),
    (["{m}", "--port", "0", "--", "--no-such-option"], 1, "--no-such-option"),
    (["{refused}", "--port", "0"], 1, "maincoder"),
    (["{cut}", "--port", "0"], 1, "cut.gguf"),
])
def test_one_sentence_and_an_exit_code(
    tiny: Callable[..., Path], tmp_path: Path, taken: int, arguments: list[str], code: int,
    words: str,
) -> None:
    require_server()
    model = tiny("m.gguf")
    refused = tiny("refused.gguf", arch="maincoder", lampe=None)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model.read_bytes()[:-5000])
    places = {"m": str(model), "taken": str(taken), "refused": str(refused), "cut": str(cut)}
    env = {name: value for name, value in os.environ.items() if name != "LLAMA_API_KEY"}
    done = subprocess.run([*PROGRAM, "serve", *(each.format(**places) for each in arguments)],
                          capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == code, done.stderr
    assert words.format(**places) in done.stderr and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_key_lets_programs_in_and_is_in_no_list_of_processes(tiny: Callable[..., Path]) -> None:
    require_server()
    with served(tiny(), api_key="secret-key") as client:
        assert client.get("/health") == {"status": "ok"}
        with pytest.raises(urllib.request.HTTPError, match="401"):  # type: ignore[attr-defined]
            client.complete("a")
        request = urllib.request.Request(client.url + "/v1/models",
                                         headers={"Authorization": "Bearer secret-key"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        if sys.platform == "linux":
            typed = Path(f"/proc/{client.pid}/cmdline").read_bytes()
            assert b"--model" in typed and b"secret-key" not in typed
