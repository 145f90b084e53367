"""The position map against worked examples made by independent code, and its properties."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lampe_gguf.method import positions
from lampe_gguf.method.positions import LOCAL, MIDDLE, NO_LIMIT, TAIL, Plan

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "positions.json").read_text())
MAX_LENGTH = 2**20


def plan_of(example):
    return positions.lampe_plan(
        example["length"],
        example["mapping_length"],
        example["local_window"],
        example["tail_window"],
    )


def paper_position(distance, length, mapping_length, local_window, tail_window):
    """The paper's formula for a relative position, in exact integers (method: section 2)."""
    if distance <= local_window:
        return distance
    if distance >= length - tail_window:
        return mapping_length - length + distance
    num = mapping_length - local_window - tail_window
    den = length - local_window - tail_window
    return num * (distance - local_window) // den + local_window


@st.composite
def lampe_cases(draw, max_length=MAX_LENGTH):
    """(length, mapping_length, local_window, tail_window) of a plan that is not the identity."""
    length = draw(st.integers(3, max_length))
    exact = draw(st.integers(0, length - 3))
    tail_window = draw(st.integers(0, exact))
    mapping_length = draw(st.integers(exact + 1, length - 1))
    return length, mapping_length, exact - tail_window, tail_window


@st.composite
def rows(draw, cases):
    """A case and a query's position i in it; often the last one, which sees all regions."""
    case = draw(cases)
    i = draw(st.one_of(st.just(case[0] - 1), st.integers(0, case[0] - 1)))
    return case, i


neighbour_plans = st.one_of(
    st.just(positions.identity_plan()),
    st.builds(positions.rerope_plan, st.integers(0, MAX_LENGTH)),
    st.builds(positions.selfextend_plan, st.integers(1, 4096), st.integers(0, MAX_LENGTH)),
    st.builds(
        positions.jetlong_plan,
        st.integers(0, MAX_LENGTH),
        st.integers(1, MAX_LENGTH),
        st.integers(0, MAX_LENGTH),
    ),
)


@pytest.mark.parametrize("example", VECTORS["maps"], ids=lambda e: f"{e['length']}")
def test_examples_agree_to_the_last_integer(example):
    plan = plan_of(example)
    i, j, names, expected = zip(*example["pairs"], strict=True)
    assert len(expected) >= 70
    assert positions.relative_position(plan, i, j).tolist() == list(expected)
    got = [positions.REGION_NAMES[r] for r in positions.regions(plan, i, j)]
    assert got == list(names)


def test_plan_by_hand():
    # 16 - 6 - 2 = 8 positions for 64 - 6 - 2 = 56 distances; g(6) = 48 // 56 = 0
    assert positions.lampe_plan(64, 16, 6, 2) == Plan(64, 6, 8, 56, 6, 62, 48)
    plan = positions.lampe_plan(64, 16, 6, 2)
    assert positions.relative_position(plan, 63, 63 - 6) == 6
    assert positions.relative_position(plan, 63, 0) == 15  # tail: 63 - 48
    assert positions.relative_position(plan, 60, 10) == 480 // 56 + 6 - 80 // 56  # 8 + 6 - 1


@settings(max_examples=60, deadline=None)
@given(rows(lampe_cases()))
def test_row_partition_bounds_and_closeness_to_the_paper(row):
    (length, mapping_length, local_window, tail_window), i = row
    plan = positions.lampe_plan(length, mapping_length, local_window, tail_window)
    j = np.arange(i, -1, -1)
    d = i - j
    region = positions.regions(plan, i, j)
    p = positions.relative_position(plan, i, j)

    is_local, is_tail = d <= local_window, d >= length - tail_window
    is_middle = (local_window < d) & (d < length - tail_window)
    assert (is_local.astype(int) + is_middle + is_tail == 1).all()
    assert (region == np.select([is_local, is_middle, is_tail], [LOCAL, MIDDLE, TAIL])).all()

    assert p.min() >= 0
    assert p.max() <= mapping_length - 1 + 2

    paper = np.array(
        [
            paper_position(int(x), length, mapping_length, local_window, tail_window)
            for x in d[:: max(1, len(d) // 2000)]
        ]
    )
    above = p[:: max(1, len(d) // 2000)] - paper
    assert above.min() >= 0
    assert above.max() <= 2
    exact = region != MIDDLE
    assert (p[exact] == np.where(is_local, d, mapping_length - length + d)[exact]).all()

    # Within local and middle nothing ever falls; where the tail begins the slack may.
    step = np.diff(p)
    into_tail = np.diff(is_tail.astype(int)) == 1
    assert (step[~into_tail] >= 0).all()
    assert (step[into_tail] >= -2).all()
    assert (step <= 3).all()  # continuous at both borders: a step of at most 1, and the slack


@settings(max_examples=200, deadline=None)
@given(lampe_cases(max_length=60))
def test_every_pair_of_a_short_input_is_the_papers_within_two(case):
    length, mapping_length, local_window, tail_window = case
    plan = positions.lampe_plan(*case)
    i, j = np.tril_indices(length)
    p = positions.relative_position(plan, i, j)
    for distance in range(length):
        above = p[i - j == distance] - paper_position(distance, *case)
        assert set(above.tolist()) <= {0, 1, 2}


def test_the_slack_of_two_is_real():
    # Otherwise the bound above would be loose and a wrong map could hide in it.
    plan = positions.lampe_plan(64, 16, 6, 2)
    i, j = np.tril_indices(64)
    paper = np.array([paper_position(int(d), 64, 16, 6, 2) for d in i - j])
    assert set((positions.relative_position(plan, i, j) - paper).tolist()) == {0, 1, 2}


@given(lampe_cases(), st.data())
def test_region_parts_make_up_the_relative_position(case, data):
    plan = positions.lampe_plan(*case)
    i = data.draw(st.integers(0, case[0] - 1))
    j = data.draw(st.integers(0, i))
    region = int(positions.regions(plan, i, j))
    query = positions.query_position(plan, region, i)
    key = positions.key_position(plan, region, j)
    assert query - key == positions.relative_position(plan, i, j)
    assert query >= 0 and key >= 0
    assert plan.mapping_length == case[1]
    assert not plan.is_identity


@given(st.integers(0, MAX_LENGTH), st.integers(0, MAX_LENGTH), st.integers(0, 4096), st.data())
def test_identity_where_nothing_has_to_be_compressed(length, extra, local_window, data):
    tail_window = data.draw(st.integers(0, 4096))
    exact = local_window + tail_window
    assert positions.lampe_plan(length, length + extra, local_window, tail_window).is_identity
    short = data.draw(st.integers(0, exact + 1))
    assert positions.lampe_plan(short, exact + 1, local_window, tail_window).is_identity
    # and one token more than that is compressed
    assert not positions.lampe_plan(exact + 2, exact + 1, local_window, tail_window).is_identity


@given(st.integers(0, MAX_LENGTH), st.data())
def test_identity_plan_is_the_distance(length, data):
    i = data.draw(st.integers(0, MAX_LENGTH))
    j = data.draw(st.integers(0, i))
    plan = positions.identity_plan(length)
    assert positions.relative_position(plan, i, j) == i - j
    assert positions.regions(plan, i, j) == LOCAL
    assert plan.is_identity and plan.mapping_length == length


@settings(max_examples=60, deadline=None)
@given(neighbour_plans, st.integers(0, MAX_LENGTH))
def test_neighbours_are_exact_locally_and_never_fall_beyond(plan, i):
    j = np.arange(i, -1, -1)
    d = i - j
    p = positions.relative_position(plan, i, j)
    assert p.min() >= 0
    assert (p <= np.maximum(d, plan.local_window)).all()
    local = d <= plan.local_window
    assert (p[local] == d[local]).all()
    assert (np.diff(p[~local]) >= 0).all()
    assert (positions.regions(plan, i, j) == np.where(local, LOCAL, MIDDLE)).all()


@given(st.integers(0, 5000), st.integers(0, MAX_LENGTH), st.data())
def test_rerope_is_constant_beyond_the_window(window, i, data):
    j = data.draw(st.integers(0, i))
    got = positions.relative_position(positions.rerope_plan(window), i, j)
    assert got == min(i - j, window)


@given(st.integers(1, 64), st.integers(0, 5000), st.integers(0, MAX_LENGTH), st.data())
def test_selfextend_formula(group_size, window, i, data):
    j = data.draw(st.integers(0, i))
    got = positions.relative_position(positions.selfextend_plan(group_size, window), i, j)
    grouped = i // group_size - j // group_size + window - window // group_size
    assert got == (i - j if i - j <= window else grouped)


@given(st.integers(1, 5000), st.integers(0, 5000), st.integers(0, MAX_LENGTH), st.data())
def test_jetlong_formula(window, local_window, length, data):
    i = data.draw(st.integers(0, max(length - 1, 0)))
    j = data.draw(st.integers(0, i))
    plan = positions.jetlong_plan(length, window, local_window)
    group_size = max(1, int(np.ceil(length / window)))
    got = positions.relative_position(plan, i, j)
    assert got == (i - j if i - j <= local_window else i // group_size - j // group_size)
    assert plan.is_identity == (length <= window)


@pytest.mark.parametrize(
    "plan",
    [
        positions.rerope_plan(100, 1000),
        positions.selfextend_plan(4, 100, 1000),
        positions.jetlong_plan(1000, 300, 100),
        positions.rerope_plan(100, 50),
        positions.jetlong_plan(1000, 300, 999),
        positions.jetlong_plan(1000, 300, 400),  # the middle lies wholly below the local window
    ],
    ids=str,
)
def test_mapping_length_of_neighbours_is_one_beyond_the_largest_position(plan):
    p = positions.relative_position(plan, plan.length - 1, np.arange(plan.length))
    assert plan.mapping_length == p.max() + 1


def test_products_do_not_overflow_at_the_largest_lengths():
    length = 2**24
    plan = positions.lampe_plan(length, length - 1, 1, 0)
    got = positions.relative_position(plan, np.int32(length - 1), np.array([0], dtype=np.int32))
    assert got.tolist() == [(length - 1) * (length - 2) // (length - 1) + 1]


def test_positions_broadcast_and_hidden_pairs_are_plain_distances():
    plan = positions.lampe_plan(40, 24, 4, 3)
    p = positions.relative_position(plan, np.arange(40)[:, None], np.arange(40)[None, :])
    assert p.shape == (40, 40) and p.dtype == np.int64
    assert p[39, 0] == 23
    assert p[3, 30] == -27


def test_fractional_positions_are_refused():
    with pytest.raises(TypeError, match="must be integers"):
        positions.relative_position(positions.identity_plan(), 1.5, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: positions.lampe_plan(100, 10, 8, 2), "at least 11"),
        (lambda: positions.lampe_plan(100, 50, -1, 2), "local_window must not be negative"),
        (lambda: positions.lampe_plan(100, 50, 1, -2), "tail_window must not be negative"),
        (lambda: positions.lampe_plan(-1, 50, 1, 2), "length must not be negative"),
        (lambda: positions.selfextend_plan(0, 8), "group_size must be at least 1"),
        (lambda: positions.rerope_plan(-8), "local_window must not be negative"),
        (lambda: positions.jetlong_plan(100, 0, 8), "window must be at least 1"),
    ],
)
def test_impossible_plans_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fields_fit_the_backends_int32():
    plan = positions.lampe_plan(2**24, 2**23, 2**21, 200)
    assert all(0 <= x <= NO_LIMIT for x in vars(plan).values())
