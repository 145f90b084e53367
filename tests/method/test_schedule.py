"""The scaled sigmoid against worked examples, and the two length policies."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampe_gguf.method import schedule
from lampe_gguf.model.presets import PRESETS

ROWS = json.loads((Path(__file__).parents[1] / "data" / "positions.json").read_text())["schedule"]


@pytest.mark.parametrize(("name", "length", "expected"), ROWS)
def test_published_schedules_agree_to_the_last_integer(name, length, expected):
    config = PRESETS[name]
    got = schedule.mapping_length(
        length,
        max_mapping_length=config.max_mapping_length,
        slope=config.slope,
        offset=config.offset,
        min_mapping_length=1,
        short_length=config.short_length,
        short_mapping_length=config.short_mapping_length,
    )
    assert got == expected
    assert config.mapping_length(length) == expected  # the preset's windows leave it alone


def test_llama3_at_32k_maps_into_4501():
    assert PRESETS["llama3"].mapping_length(32768) == 4501


def test_sigmoid_by_hand():
    assert schedule.scaled_sigmoid(100, 8.0, 0.01, -1.0) == 4.0  # a*l + b = 0: half of L
    assert schedule.scaled_sigmoid(0, 10.0, 0.0, math.log(4)) == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("slope", "offset", "expected"), [(-1e308, 0.0, 0.0), (1e308, 0.0, 9.0), (0.0, -1e4, 0.0)]
)
def test_sigmoid_reaches_its_limits_without_overflow(slope, offset, expected):
    assert schedule.scaled_sigmoid(2**24, 9.0, slope, offset) == expected


@given(
    st.integers(0, 2**24),
    st.integers(1, 2000),
    st.floats(2000, 2**17),
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
)
def test_mapping_length_stays_between_its_bounds(length, smallest, largest, slope, offset):
    m = schedule.mapping_length(
        length,
        max_mapping_length=largest,
        slope=slope,
        offset=offset,
        min_mapping_length=smallest,
    )
    assert smallest <= m <= largest
    assert isinstance(m, int)


@given(st.integers(0, 2**20), st.integers(0, 2**20))
def test_a_rising_schedule_never_falls(a, b):
    config = PRESETS["llama3.1"]
    low, high = sorted((a, b))
    assert config.mapping_length(low) <= config.mapping_length(high)


def test_short_rule_ends_exactly_at_short_length():
    kind = dict(max_mapping_length=100.0, slope=0.0, offset=40.0, min_mapping_length=5)
    short = dict(short_length=64, short_mapping_length=20)
    assert schedule.mapping_length(63, **kind, **short) == 20
    assert schedule.mapping_length(64, **kind, **short) == 100
    assert schedule.mapping_length(63, **kind) == 100


def test_a_short_mapping_length_may_exceed_the_long_ones_and_holds_both_exact_windows():
    kind = dict(max_mapping_length=100.5, slope=0.0, offset=40.0, min_mapping_length=5)
    assert schedule.mapping_length(9, **kind, short_length=64, short_mapping_length=400) == 400
    assert schedule.mapping_length(64, **kind, short_length=64, short_mapping_length=400) == 100
    assert schedule.mapping_length(9, **kind, short_length=64, short_mapping_length=4) == 5


def test_causal_lengths_by_hand():
    assert schedule.causal_lengths(9, 4).tolist() == [4, 4, 4, 4, 8, 8, 8, 8, 12]
    assert schedule.causal_lengths(3, 1).tolist() == [1, 2, 3]
    assert schedule.causal_lengths(0, 512).tolist() == []


@given(st.integers(1, 5000), st.integers(1, 2**20))
def test_causal_length_holds_the_query_and_ignores_what_follows(n_tokens, step):
    lengths = schedule.causal_lengths(n_tokens, step)
    i = np.arange(n_tokens)
    assert (lengths >= i + 1).all() and (lengths - (i + 1) < step).all()
    assert (lengths % step == 0).all()
    assert (schedule.causal_lengths(n_tokens + 7, step)[:n_tokens] == lengths).all()
    assert lengths[-1] == schedule.round_up(n_tokens, step)


def test_prompt_lengths_by_hand():
    assert schedule.prompt_lengths(6, 4).tolist() == [4, 4, 4, 4, 5, 6]
    assert schedule.prompt_lengths(3, 4).tolist() == [4, 4, 4]
    assert schedule.prompt_lengths(3, 0).tolist() == [1, 2, 3]
