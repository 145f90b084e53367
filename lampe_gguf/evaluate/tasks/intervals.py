"""95 % confidence intervals of what was counted or averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z = 1.959963984540054  # 97.5 % of the normal distribution lie below
RESAMPLES = 2000


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's interval for a share of hits; (0, 1) of nothing."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = hits / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # exactly 0 and 1 at the ends, where rounding would leave 1e-17
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == n else middle + half)


def bootstrap(scores: Sequence[float], seed: int) -> tuple[float, float]:
    """Percentile interval of a mean, from 2,000 seeded resamples; (0, 1) for one score alone."""
    values = np.asarray(scores, dtype=np.float64)
    if len(values) < 2:
        return 0.0, 1.0
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
