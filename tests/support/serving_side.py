"""llama-server for a test: started, asked over HTTP, ended."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lampe_gguf.backend import programs
from lampe_gguf.errors import LampeError
from lampe_gguf.serving.arguments import Wishes
from lampe_gguf.serving.log import Attention
from lampe_gguf.serving.serve import plan, start

SECONDS = 120  # for one request


def require_server() -> None:
    """Skip where the installed backend was built without llama-server."""
    try:
        programs.find_program(programs.SERVER)
    except LampeError as error:
        pytest.skip(str(error))


@dataclass
class Client:
    """Asks one server; `log` is what that has written so far."""

    url: str
    pid: int
    log: list[str] = field(default_factory=list)
    attention: Attention = field(default_factory=Attention)

    def get(self, path: str) -> Any:
        return self._send(urllib.request.Request(self.url + path))

    def post(self, path: str, **data: Any) -> Any:
        return self._send(self._request(path, data))

    def stream(self, path: str, **data: Any) -> Iterator[Any]:
        """The events of an answer as they come; closing the generator leaves the server."""
        request = self._request(path, {**data, "stream": True})
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            for line in answer:
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    yield json.loads(line[6:])

    def complete(self, prompt: Any, n: int = 8, **options: Any) -> Any:
        """The likeliest `n` tokens after a prompt, with their log-probabilities."""
        options = {"temperature": 0, "n_predict": n, "n_probs": 1, "return_tokens": True,
                   "ignore_eos": True, **options}
        return self.post("/completion", prompt=prompt, **options)

    def _request(self, path: str, data: dict[str, Any]) -> urllib.request.Request:
        return urllib.request.Request(self.url + path, json.dumps(data).encode(),
                                      {"Content-Type": "application/json"})

    @staticmethod
    def _send(request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return json.loads(answer.read())


@contextlib.contextmanager
def served(model: Path, *extra: str, **wishes: Any) -> Iterator[Client]:
    """A server for a model; `extra` are llama-server's own options."""
    require_server()
    wishes = {"port": 0, "threads": 1, **wishes}
    planned = plan(model, Wishes(extra=extra, **wishes))
    log: list[str] = []
    with start(model, planned, log.append) as server:
        server.wait_ready()
        yield Client(planned.url, server.pid, log, server.attention)


def same(one: Any, other: Any, tolerance: float = 1e-3) -> None:
    """Two answers of `complete` say the same: every token, and about its log-probability."""
    assert one["tokens"] == other["tokens"] and one["tokens"]
    for ours, theirs in zip(one["completion_probabilities"], other["completion_probabilities"],
                            strict=True):
        assert abs(ours["logprob"] - theirs["logprob"]) <= tolerance, (ours, theirs)
