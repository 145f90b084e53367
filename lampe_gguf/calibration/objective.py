"""What a map is judged by: recall loss and unseen loss, and what a text can tell apart of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..errors import UsageError
from ..evaluate.reading import FloatArray
from ..evaluate.recall import Loss, loss

K = TypeVar("K")

ERRORS = 2.0  # standard errors of a mean difference that count as none
LEAST = 1e-3  # nats: less may be the arithmetic's, two ways to compute the same


@dataclass(frozen=True, eq=False)
class Losses:
    """Of one map, nats a token of each excerpt: at one length, or at several, a row each.

    old    of what was read, [excerpts] or [n_lengths, excerpts]
    fresh  of what was not, [fresh ones] or [n_lengths, fresh ones]
    """

    old: FloatArray
    fresh: FloatArray


def stacked(losses: Iterable[Losses]) -> Losses:
    """Those of several lengths, as one."""
    each = list(losses)
    return Losses(np.stack([x.old for x in each]), np.stack([x.fresh for x in each]))


@dataclass(frozen=True)
class Objective:
    """recall * recall loss + unseen * unseen loss, nats a token; lengths count alike.

    Differences are paired, excerpt by excerpt: what makes one hard is hard for all maps.
    """

    recall: float = 1.0
    unseen: float = 1.0

    def value(self, losses: Losses) -> float:
        return self.recall * float(losses.old.mean()) + self.unseen * float(losses.fresh.mean())

    def difference(self, losses: Losses, than: Losses) -> Loss:
        """How much more one map loses than another on the same excerpts, and the standard error."""
        old = loss(_by_excerpt(losses.old - than.old))
        fresh = loss(_by_excerpt(losses.fresh - than.fresh))
        # a part without weight has no say, even where its error is not known
        parts = [(weight, part) for weight, part in ((self.recall, old), (self.unseen, fresh))
                 if weight]
        return Loss(
            sum(weight * part.mean for weight, part in parts),
            math.hypot(*(weight * part.error for weight, part in parts)),
        )

    def is_worse(self, losses: Losses, than: Losses) -> bool:
        """Whether it loses more, beyond what the choice of the excerpts may do."""
        found = self.difference(losses, than)
        return found.mean > max(LEAST, ERRORS * found.error)

    def best(self, found: Mapping[K, Losses]) -> K:
        return min(found, key=lambda x: self.value(found[x]))

    def tied(self, found: Mapping[K, Losses]) -> list[K]:
        """All that cannot be told from the best, which comes first, in the order of their value."""
        best = found[self.best(found)]
        return sorted((x for x in found if not self.is_worse(found[x], best)),
                      key=lambda x: self.value(found[x]))


RECALL = Objective(1.0, 0.0)
UNSEEN = Objective(0.0, 1.0)  # what perplexity sees


def weighted(weights: Sequence[float]) -> Objective:
    """The objective of two weights, of recall and unseen loss; UsageError where they are none."""
    values = [float(x) for x in weights]
    if len(values) != 2 or not all(0 <= x < math.inf for x in values) or not sum(values):
        raise UsageError(
            f"--weights is {','.join(f'{x:g}' for x in values)}; give two numbers, of recall and "
            "of unseen loss, neither below 0 and not both 0"
        )
    return Objective(*values)


def _by_excerpt(values: FloatArray) -> FloatArray:
    """The mean over lengths, excerpt by excerpt."""
    return np.asarray(values.reshape(-1, values.shape[-1]).mean(axis=0), dtype=np.float64)
