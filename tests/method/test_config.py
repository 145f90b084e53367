"""LampeConfig: ranges of every field, and the plans that follow from it."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampe_gguf.errors import LampeError
from lampe_gguf.method import positions
from lampe_gguf.method.config import LampeConfig

GOOD = LampeConfig(
    window=8192,
    context_length=32768,
    local_window=512,
    tail_window=200,
    max_mapping_length=6144.0,
    slope=0.0,
    offset=40.0,
)


def changed(**values):
    return dataclasses.replace(GOOD, **values)


# field -> (values at the ends of its range, values just outside or of the wrong kind)
RANGES = {
    "version": ([1], [0, 2, 1.0, "1", None, True]),
    "method": (["lampe", "rope", "rerope", "jetlong"], ["", "LaMPE", "yarn", None, 1]),
    "window": ([6144, 32768], [15, 2**24 + 1, -1, 8192.0, "8192", None, math.nan]),
    "context_length": ([8192, 2**24], [8191, 2**24 + 1, 0, 1e5, None]),
    "local_window": ([1, 6144 - 200 - 1], [0, -1, 8192, 512.0, True, None]),
    "tail_window": ([0, 6144 - 512 - 1], [-1, 7680, 2**32, 200.0, None]),
    "max_mapping_length": (
        [713, 713.0, 8192.0, 6144.5],
        [712.999, 8192.5, 0, -6144.0, math.nan, math.inf, "6144", None, True],
    ),
    "slope": ([0, -1e300, 1e300, 8.6e-05], [math.nan, math.inf, -math.inf, "0", None, 10**400]),
    "offset": ([0, -1e300, 1e300], [math.nan, math.inf, -math.inf, "40", None, False]),
    "short_length": ([0], [-1, 2**32, 1.5, None]),
    "attention_factor": ([0.1, 1, 10.0], [0.0999, 10.001, 0, -1.0, math.nan, math.inf, None]),
    "length_policy": (["causal", "prompt"], ["", "Causal", None, 0]),
    "length_step": ([1, 2**20], [0, -1, 2**20 + 1, 512.0, None]),
    "group_size": ([0, 1, 2**24], [-1, 2**24 + 1, 2.0, None]),
    "provenance": (["", "x" * 511], ["x" * 512, "é" * 256, None, 7]),
}


def test_the_table_covers_every_field():
    fields = {field.name for field in dataclasses.fields(LampeConfig)}
    assert fields == set(RANGES) | {"short_mapping_length"}


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, (good, _) in RANGES.items() for v in good]
)
def test_values_in_range_pass(name, value):
    config = changed(**{name: value})
    assert config.validate() is config


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, (_, bad) in RANGES.items() for v in bad])
def test_values_out_of_range_are_refused_by_name_and_value(name, value):
    config = changed(**{name: value})
    with pytest.raises(LampeError, match="must be") as caught:
        config.validate()
    assert f"LaMPE's {name} is {value!r}"[:60] in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"local_window": 5944}, "max_mapping_length is 6144.0; it must be a number from 6145"),
        ({"tail_window": 5632}, "max_mapping_length is 6144.0; it must be a number from 6145"),
        ({"local_window": 8191}, "tail_window is 200; it must be 0 .*local_window"),
        ({"window": 6143}, "max_mapping_length is 6144.0; .* to 6143"),
    ],
)
def test_windows_that_do_not_fit_together_are_refused(values, message):
    with pytest.raises(LampeError, match=message):
        changed(**values).validate()


@pytest.mark.parametrize(
    ("short_length", "short_mapping_length", "good"),
    [
        (8192, 713, True),
        (8192, 6144, True),
        (8192, 8192, True),
        (1, 1536, True),
        (2**32 - 1, 1536, True),
        (0, 0, True),
        (0, 1536, True),
        (8192, 0, False),
        (8192, 712, False),
        (8192, 8193, False),
        (0, 712, False),
        (8192, 1536.0, False),
        (0, None, False),
    ],
)
def test_short_rule(short_length, short_mapping_length, good):
    config = changed(short_length=short_length, short_mapping_length=short_mapping_length)
    if good:
        config.validate()
    else:
        with pytest.raises(LampeError, match="short_mapping_length"):
            config.validate()


def test_selfextend_needs_a_group_size():
    changed(method="selfextend", group_size=1).validate()
    with pytest.raises(LampeError, match="group_size is 0; it must be an integer from 1"):
        changed(method="selfextend").validate()


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.plan(9000),
        lambda c: c.mapping_length(9000),
        lambda c: c.lengths_for(9),
        lambda c: c.plans_for(9),
    ],
)
def test_a_bad_configuration_computes_nothing(use):
    with pytest.raises(LampeError, match="slope"):
        use(changed(slope=math.nan))


@pytest.mark.parametrize("length", [-1, 2**31 - 1, 2**40])
def test_impossible_lengths_are_refused(length):
    with pytest.raises(LampeError, match="length of"):
        GOOD.plan(length)
    with pytest.raises(LampeError, match="length of"):
        GOOD.mapping_length(length)


def test_plan_of_each_method():
    exact = positions.lampe_plan(16384, 6144, 512, 200)
    assert GOOD.plan(16384) == exact and not exact.is_identity
    assert changed(method="rope").plan(16384) == positions.identity_plan(16384)
    assert changed(method="rerope").plan(16384) == positions.rerope_plan(512, 16384)
    selfextend = changed(method="selfextend", group_size=4)
    assert selfextend.plan(16384) == positions.selfextend_plan(4, 512, 16384)
    jetlong = changed(method="jetlong")
    assert jetlong.plan(16385).den == 3
    assert jetlong.plan(16384) == positions.jetlong_plan(16384, 8192, 512)
    assert jetlong.plan(8192) == positions.identity_plan(8192)


@given(st.integers(0, 2**24))
def test_plan_is_the_identity_exactly_where_it_must_be(length):
    config = changed(short_length=3000, short_mapping_length=1536)
    m = config.mapping_length(length)
    assert m == (1536 if length < 3000 else 6144)
    plan = config.plan(length)
    assert plan.is_identity == (m >= length)
    assert plan.mapping_length == min(m, length)
    assert plan.length == length


def test_the_schedule_is_clamped_to_what_holds_both_windows():
    assert changed(offset=-40.0).mapping_length(20000) == 713
    assert changed(max_mapping_length=6144.9).mapping_length(20000) == 6144


def test_lengths_by_policy():
    causal = changed(length_step=4)
    assert causal.lengths_for(6).tolist() == [4, 4, 4, 4, 8, 8]
    assert causal.lengths_for(6, prompt_length=5).tolist() == [4, 4, 4, 4, 8, 8]
    prompt = changed(length_policy="prompt")
    assert prompt.lengths_for(6).tolist() == [6] * 6
    assert prompt.lengths_for(6, prompt_length=4).tolist() == [4, 4, 4, 4, 5, 6]


@pytest.mark.parametrize("policy", ["causal", "prompt"])
def test_plans_for_is_the_plan_of_each_length(policy):
    config = changed(length_policy=policy)
    lengths = config.lengths_for(7000, prompt_length=6900)
    plans = config.plans_for(7000, prompt_length=6900)
    assert len(plans) == 7000
    assert [plan.length for plan in plans] == lengths.tolist()
    assert plans[-1] == config.plan(int(lengths[-1]))
    assert not plans[-1].is_identity
    assert plans[0].is_identity == (policy == "causal")


def test_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GOOD.window = 1
