"""Read an input quickly up to its last part, and that part with its attention weights in sight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..backend import api
from ..backend.llama import LampeLlama
from ..container.meter import Meter
from . import stats
from .probe import Probe


class Rows:
    """What is kept of attention rows: their entropy and pattern, summed over the queries."""

    def __init__(self, edges: npt.NDArray[np.int64]) -> None:
        self.edges = edges
        self.clear()

    def clear(self) -> None:
        self._entropy: dict[int, stats.Array] = {}
        self._pattern: dict[int, stats.Array] = {}
        self._count: dict[int, int] = {}

    def add(self, layer: int, query: int, rows: npt.NDArray[np.float32]) -> None:
        entropy, pattern = stats.entropy(rows), stats.pattern(rows, self.edges)
        if layer in self._count:
            entropy, pattern = entropy + self._entropy[layer], pattern + self._pattern[layer]
        self._entropy[layer], self._pattern[layer] = entropy, pattern
        self._count[layer] = self._count.get(layer, 0) + 1

    def mean_entropy(self) -> stats.Array:
        """Nats, mean over the queries: [n_layer, n_head]"""
        return np.stack([self._entropy[x] / self._count[x] for x in sorted(self._count)])

    def mean_pattern(self) -> stats.Array:
        """Mass, mean over the queries: [n_layer, n_head, 1 + n_bins]"""
        return np.stack([self._pattern[x] / self._count[x] for x in sorted(self._count)])


class PrefixModel(LampeLlama):
    """Reads the beginning of inputs: under `prompt`, positions follow from the whole of one."""

    input_length = 0

    def _announce(self, n_new: int) -> None:
        config = self.lampe_config
        if config is not None and config.length_policy == "prompt":
            api.set_prompt_length(self.ctx, self.input_length)


class Reader:
    """A model and a probe of it; a context manager.

    llm    fused attention, where it runs: most of an input is read there
    probe  has the rest, and what comes after

    Needs memory for the keys and values of a whole context three times: the two contexts, and
    the state handed from one to the other. Raises LampeError as LampeLlama and Probe do.
    """

    def __init__(self, llm: PrefixModel, rows: Rows, work: Meter) -> None:
        self.llm = llm
        self.rows = rows
        self.work = work
        try:
            self.probe = Probe(llm, rows.add)
        except BaseException:
            llm.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.probe.close()
        self.llm.close()

    def read(self, tokens: Sequence[int], queries: Sequence[int]) -> None:
        """Read an input and put the rows of the queries (positions, ascending) into `rows`.

        A beginning that the input shares with the one before is not read again.
        """
        first = queries[0]
        self.rows.clear()
        self._read_beginning(list(tokens[:first]), len(tokens))
        self.probe.take_over(self.llm, len(tokens))
        self.probe.read(tokens[first:], queries, self.work.advance)

    def _read_beginning(self, tokens: list[int], length: int) -> None:
        llm = self.llm
        config = llm.lampe_config
        shared = 0
        if config is None or config.length_policy == "causal":
            before = llm.input_ids[: min(llm.n_tokens, len(tokens))]
            differ = np.flatnonzero(before != np.array(tokens[: len(before)]))
            shared = int(differ[0]) if len(differ) else len(before)
        llm.n_tokens = shared
        llm.input_length = length
        if shared == len(tokens):
            return
        read = 0

        def show(done: int, total: int) -> None:
            nonlocal read
            self.work.advance(done - read)
            read = done

        llm.progress = show
        try:
            llm.eval(tokens[shared:])
        finally:
            llm.progress = None
