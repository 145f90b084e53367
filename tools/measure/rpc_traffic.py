"""What goes over the network where a model is split over peers (llama.cpp's RPC), by a formula.

Prints what reading and writing cost for Llama 3 70B at 128K, over 1 and 10 Gbit/s. The same formula
is checked to the byte against a tiny model (tests/backend/test_rpc.py).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TENSOR = 296  # bytes that describe a tensor (struct rpc_tensor)
COMMAND = 1 + 8  # its number and its size
SET = COMMAND + TENSOR + 1 + 8  # around the data
GET = COMMAND + TENSOR + 16
AGAIN = COMMAND + 4  # the last graph once more
ANSWER = 8
GRAPH_LAYER = 14_600  # bytes of a new graph for each layer of Llama, with LaMPE; stock 14,200


@dataclass(frozen=True)
class Shape:
    """A model split over peers, all of its layers."""

    n_embd: int
    n_vocab: int
    n_peers: int
    n_layer: int = 0


@dataclass(frozen=True)
class Traffic:
    """Bytes and round trips of one batch, over all peers."""

    sent: int
    received: int
    round_trips: int

    @property
    def bytes(self) -> int:
        return self.sent + self.received


def batch_traffic(
    shape: Shape, n_tokens: int, n_kv: int, *, lampe: bool, new_graph: bool = False,
    n_outputs: int = 1,
) -> Traffic:
    """What `n_tokens` cost with `n_kv` cells of the cache in reach (padded, as the graph has it).

    To each peer go the hidden state, the tokens' positions and cells, and the mask; with LaMPE, the
    plans and the positions of the keys too. Back come the hidden state, and of the last peer the
    logits. Keys and values stay.
    """
    hidden = 4 * shape.n_embd * n_tokens
    inputs = [hidden, 4 * n_tokens, 8 * n_tokens, 8 * n_tokens, 2 * n_kv * n_tokens]
    if lampe:
        inputs += [32 * n_tokens, 4 * n_kv]
    each = sum(SET + size for size in inputs) + GET + (0 if new_graph else AGAIN)
    sent = shape.n_peers * each + SET + 4 * n_outputs
    if new_graph:
        sent += GRAPH_LAYER * shape.n_layer
    received = (shape.n_peers - 1) * hidden + 4 * shape.n_vocab * n_outputs
    return Traffic(sent, received + ANSWER * shape.n_peers, shape.n_peers)


def token_traffic(shape: Shape, n_kv: int, *, lampe: bool) -> Traffic:
    """What a token costs that is written."""
    return batch_traffic(shape, 1, n_kv, lampe=lampe)


def seconds(traffic: Traffic, gbit: float, rtt: float) -> float:
    """How long that takes, nothing computed meanwhile: peers work one after the other."""
    return traffic.bytes * 8 / (gbit * 1e9) + traffic.round_trips * rtt


def prompt_traffic(shape: Shape, n_tokens: int, n_ubatch: int, *, lampe: bool) -> Traffic:
    """What it costs to read a prompt, one output at its end."""
    parts = [
        batch_traffic(shape, n_ubatch, -(-end // 256) * 256, lampe=lampe, new_graph=True,
                      n_outputs=int(end == n_tokens))
        for end in range(n_ubatch, n_tokens + 1, n_ubatch)
    ]
    return Traffic(*(sum(getattr(part, name) for part in parts)
                     for name in ("sent", "received", "round_trips")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-embd", type=int, default=8192)
    parser.add_argument("--n-vocab", type=int, default=128256)
    parser.add_argument("--n-layer", type=int, default=80)
    parser.add_argument("--n-kv", type=int, default=131072, help="tokens in the context")
    parser.add_argument("--n-ubatch", type=int, default=512)
    parser.add_argument("--peers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rtt", type=float, default=0.2, help="of the network, ms")
    given = parser.parse_args()
    print("peers  what             sent, MB  back, MB  trips  at 1 Gbit/s  at 10 Gbit/s")
    for n_peers in given.peers:
        shape = Shape(given.n_embd, given.n_vocab, n_peers, given.n_layer)
        for lampe in (False, True):
            kind = "LaMPE" if lampe else "stock"
            token = token_traffic(shape, given.n_kv, lampe=lampe)
            prompt = prompt_traffic(shape, given.n_kv, given.n_ubatch, lampe=lampe)
            for what, found, unit, factor in (("token", token, "ms", 1e3),
                                              ("prompt", prompt, "s", 1)):
                times = [seconds(found, gbit, given.rtt / 1e3) * factor for gbit in (1, 10)]
                print(f"{n_peers:>5}  {what + ', ' + kind:<15}{found.sent / 1e6:>10,.2f}"
                      f"{found.received / 1e6:>10,.2f}{found.round_trips:>7,}"
                      + "".join(f"{time:>10,.2f} {unit:<2}" for time in times))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
