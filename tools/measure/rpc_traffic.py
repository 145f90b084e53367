#!/usr/bin/env python3
"""What goes over the network where a model is split over peers (llama.cpp's RPC), by a formula.

    .venv/bin/python tools/measure/rpc_traffic.py [--n-embd N] [--peers N,N]

Prints what a prompt of 128K tokens and a token after it cost of Llama 3 70B, over 1 and 10 Gbit/s:
stock's RPC, and this build's. The formula is checked to the byte with a tiny model
(tests/backend/test_rpc.py).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
import numpy as np
import numpy.typing as npt
from arguments import COUNT, run, tool

from lampe_gguf.cli.options import Listed

TENSOR = 296  # bytes that describe a tensor (struct rpc_tensor)
COMMAND = 1 + 8  # its number and its size
SET = COMMAND + TENSOR + 1 + 8  # around the data
RUNS = COMMAND + TENSOR + 8  # around data that is sent as runs
RUN = 12
GET = COMMAND + TENSOR + 16
AGAIN = COMMAND + 4  # the last graph once more
ANSWER = 8
PLAN = 32  # of a token
GRAPH_LAYER = 14_600  # bytes of a new graph for each layer of Llama; stock's 14,200
ROW_RUNS = 2.5  # of a row of the mask, on average
KINDS = ("stock", "off", "lampe")  # stock's RPC; this build's with LaMPE off, and on


@dataclass(frozen=True)
class Shape:
    """A model whose layers are all on peers."""

    n_embd: int
    n_vocab: int
    n_peers: int
    n_layer: int = 0


@dataclass(frozen=True)
class Traffic:
    """Bytes and round trips, over all peers."""

    sent: float
    received: float
    round_trips: int

    @property
    def bytes(self) -> float:
        return self.sent + self.received


def count_runs(data: npt.NDArray[np.generic]) -> int:
    """How many runs the build sends of some data, as rpc-runs.h takes them."""
    words = data.view(np.uint32)
    steps = np.diff(words)
    count = at = 0
    while at < len(words):
        count += 1
        # the run goes on as long as the steps are the first one
        others = np.flatnonzero(steps[at:] != steps[at : at + 1])
        at = at + int(others[0]) + 1 if len(others) else len(words)
    return count


def token_traffic(shape: Shape, pos: int, n_kv: int, kind: str) -> Traffic:
    """What the token at `pos` costs that is written, `n_kv` cells of the cache in reach."""
    mask = np.full(n_kv, -np.inf, np.float16)
    mask[: pos + 1] = 0
    positions = np.full(n_kv, -1, np.int32)
    positions[: pos + 1] = np.arange(pos + 1)
    return _traffic(shape, 1, 1, n_kv, kind, count_runs(mask), count_runs(positions), AGAIN)


def prompt_traffic(shape: Shape, n_tokens: int, n_ubatch: int, kind: str) -> Traffic:
    """What it costs to read a prompt, with one output at its end. About: see ROW_RUNS."""
    parts = [
        _traffic(shape, n_ubatch, int(end == n_tokens), -(-end // 256) * 256, kind,
                 ROW_RUNS * n_ubatch, 2, GRAPH_LAYER * shape.n_layer / shape.n_peers)
        for end in range(n_ubatch, n_tokens + 1, n_ubatch)
    ]
    return Traffic(sum(part.sent for part in parts), sum(part.received for part in parts),
                   sum(part.round_trips for part in parts))


def seconds(traffic: Traffic, gbit: float, rtt: float) -> float:
    """How long that takes, s; peers work one after the other. rtt: of a round trip, s."""
    return traffic.bytes * 8 / (gbit * 1e9) + traffic.round_trips * rtt


def _traffic(
    shape: Shape, n_tokens: int, n_outputs: int, n_kv: int, kind: str, mask_runs: float,
    position_runs: float, graph: float,
) -> Traffic:
    """One batch. To each peer go the hidden state, the tokens' positions and cells, and the mask;
    with LaMPE, the plans and the positions of the keys. Back come the hidden state, and of the last
    peer the logits. Keys and values stay."""
    hidden = 4 * shape.n_embd * n_tokens
    each: float = sum(SET + n_tokens * size for size in (4 * shape.n_embd, 4, 8, 8))
    each += SET + 2 * n_kv * n_tokens if kind == "stock" else RUNS + RUN * mask_runs
    if kind == "lampe":
        each += SET + PLAN * n_tokens + RUNS + RUN * position_runs
    each += graph + GET
    received = (shape.n_peers - 1) * hidden + 4 * shape.n_vocab * n_outputs
    return Traffic(shape.n_peers * each + SET + 4 * n_outputs,
                   received + ANSWER * shape.n_peers, shape.n_peers)


@tool(__doc__)
@click.option("--n-embd", type=COUNT, default=8192, show_default=True)
@click.option("--n-vocab", type=COUNT, default=128256, show_default=True)
@click.option("--n-layer", type=COUNT, default=80, show_default=True)
@click.option("--n-kv", type=COUNT, default=131072, show_default=True,
              help="Tokens in the context.")
@click.option("--n-ubatch", type=COUNT, default=512, show_default=True)
@click.option("--peers", type=Listed(COUNT), default="2,4", show_default=True)
@click.option("--rtt", type=click.FloatRange(0), default=0.2, show_default=True,
              help="Of a round trip, ms.")
def main(n_embd: int, n_vocab: int, n_layer: int, n_kv: int, n_ubatch: int,
         peers: tuple[int, ...], rtt: float) -> None:
    """Print the table."""
    print("peers  what                sent, MB    back, MB  trips  at 1 Gbit/s  at 10 Gbit/s")
    for n_peers in peers:
        shape = Shape(n_embd, n_vocab, n_peers, n_layer)
        for kind in KINDS:
            token = token_traffic(shape, n_kv - 1, n_kv, kind)
            prompt = prompt_traffic(shape, n_kv, n_ubatch, kind)
            for what, found, unit, factor in (("token", token, "ms", 1e3),
                                              ("prompt", prompt, "s", 1)):
                times = [seconds(found, gbit, rtt / 1e3) * factor for gbit in (1, 10)]
                print(f"{n_peers:>5}  {what + ', ' + kind:<14}{found.sent / 1e6:>14,.3f}"
                      f"{found.received / 1e6:>12,.3f}{found.round_trips:>7,}"
                      + "".join(f"{time:>10,.2f} {unit:<2}" for time in times))


if __name__ == "__main__":
    run(main)
