"""The objective, the search and the curve of a calibration, on losses whose answer is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lampe_gguf.calibration.choice import choose_schedules, plain_inside
from lampe_gguf.calibration.fit import fit_sigmoid
from lampe_gguf.calibration.objective import (
    RECALL,
    UNSEEN,
    Losses,
    Objective,
    stacked,
    weighted,
)
from lampe_gguf.calibration.report import Report, Task, name_of
from lampe_gguf.calibration.search import (
    LOCAL,
    MAPPED,
    MAX_TRIALS,
    START,
    flat,
    next_cell,
    shape,
)
from lampe_gguf.errors import UsageError
from lampe_gguf.method.schedule import scaled_sigmoid
from lampe_gguf.model.presets import PRESETS, default_config

WINDOW = 8192
BOTH = Objective()
GRID = [(i, k) for i in range(len(MAPPED)) for k in range(len(LOCAL))]
HARD = np.array([1.0, 3.0, 2.0, 5.0, 4.0, 1.5])  # excerpts differ by far more than maps do
JITTER = np.array([1, -1, 1, -1, 1, -1]) * 1e-3


def losses(recall: float, unseen: float = 0.0, jitter: float = 0.0) -> Losses:
    return Losses(HARD + recall + jitter * JITTER, HARD + unseen + jitter * JITTER)


def test_both_losses_count_by_their_weights() -> None:
    one, other = losses(0.3, 0.1), losses(0.1, 0.2)
    assert BOTH.difference(one, other).mean == pytest.approx(0.1)
    assert weighted([2, 0.5]).difference(one, other).mean == pytest.approx(0.35)
    assert [RECALL.best({1: one, 2: other}), UNSEEN.best({1: one, 2: other})] == [2, 1]
    assert weighted([1, 3]).value(one) == pytest.approx(4 * HARD.mean() + 0.6)


def test_errors_are_of_paired_excerpts_and_both_losses() -> None:
    rng = np.random.default_rng(0)
    one, other = (Losses(rng.normal(size=(2, 8)), rng.normal(size=(2, 5))) for _ in range(2))
    old = (one.old - other.old).mean(axis=0)
    fresh = (one.fresh - other.fresh).mean(axis=0)
    found = weighted([2, 1]).difference(one, other)
    assert found.mean == pytest.approx(2 * old.mean() + fresh.mean())
    assert found.error == pytest.approx(
        (4 * old.var(ddof=1) / 8 + fresh.var(ddof=1) / 5) ** 0.5)


def test_ties_are_paired() -> None:
    found = {1: losses(0.01, jitter=1), 2: losses(0.0), 3: losses(1e-4, jitter=1)}
    assert BOTH.tied(found) == [2, 3]
    assert BOTH.is_worse(found[1], found[2]) and not BOTH.is_worse(found[2], found[1])


def test_what_arithmetic_alone_may_do_is_no_difference() -> None:
    assert not BOTH.is_worse(losses(1e-5), losses(0.0))


@pytest.mark.parametrize("weights", [(1,), (1, 1, 1), (0, 0), (-1, 2), (float("nan"), 1),
                                     (float("inf"), 1)])
def test_weights_that_are_none_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="two numbers, of recall and of unseen loss"):
        weighted(weights)


def search(value, jitter=0.0):
    """Ask what next_cell asks for; the losses by cell, in order."""
    found: dict = {}
    while (cell := next_cell(found, BOTH)) is not None:
        assert cell not in found
        found[cell] = losses(value(*cell), jitter=jitter * (1 + len(found) % 3))
    return found


@pytest.mark.parametrize("best", GRID)
def test_search_finds_the_bottom(best: tuple[int, int]) -> None:
    found = search(lambda i, k: 0.1 * (abs(i - best[0]) + abs(k - best[1])))
    assert BOTH.best(found) == best
    assert list(found)[: len(START)] == list(START) and len(found) <= MAX_TRIALS


def test_search_asks_less_where_the_answer_is_clear_and_more_where_it_is_not() -> None:
    clear = search(lambda i, k: 0.1 * (abs(i - 2) + abs(k - 1)))
    assert len(clear) == 7  # where it starts, four neighbours, the rest of the coarse range
    assert len(search(lambda i, k: 1e-4 * i, jitter=1.0)) == MAX_TRIALS


def test_grid_is_in_units_of_the_window() -> None:
    assert shape((2, 1), 8192) == (4096, 1024) and shape((1, 3), 8192) == (6144, 384)
    assert shape((5, 3), 64) == (8, 1)


@pytest.mark.parametrize("cell", GRID)
@pytest.mark.parametrize("window", [256, 8192, 131072])
def test_maps_of_the_grid_are_valid(cell: tuple[int, int], window: int) -> None:
    mapped, local_window = shape(cell, window)
    config = flat(default_config(window), mapped, local_window).validate()
    assert config.mapping_length(3 * window) == mapped
    assert name_of(config) == f"{mapped}/{local_window}"
    inside = plain_inside(config)
    assert inside.plan(window).is_identity and inside.plan(3 * window) == config.plan(3 * window)
    assert config.plan(window).is_identity == (mapped == window)


@pytest.mark.parametrize("name", ["llama3", "llama2"])
def test_fit_finds_published_curves_again(name):
    preset = PRESETS[name]
    lengths = [8192, 12288, 16384, 24576, 32768, 49152]
    points = [
        round(scaled_sigmoid(x, preset.max_mapping_length, preset.slope, preset.offset))
        for x in lengths
    ]
    fit = fit_sigmoid(lengths, points, preset.window)
    assert fit is not None and fit.problem is None
    assert fit.residual < 0.004 * preset.max_mapping_length
    for length, m in zip(lengths, points, strict=True):
        assert fit.at(length) == pytest.approx(m, abs=0.01 * preset.max_mapping_length)


@pytest.mark.parametrize(("points", "problem"), [
    ([4096, 4096, 4096, 4096, 4096], "no curve"),
    ([6000, 5000, 4000, 3000, 2000], "falls"),
    ([2000, 8000, 2100, 7900, 2200], "misses"),
    ([2000, 3000, 4000], "too few"),
])
def test_what_is_no_sigmoid_is_said(points, problem):
    fit = fit_sigmoid([10000 + 4096 * i for i in range(len(points))], points, WINDOW)
    assert fit is not None and fit.problem is not None and problem in fit.problem


def test_one_point_has_no_fit():
    assert fit_sigmoid([16384], [4096], WINDOW) is None


def report(lengths: list[int]) -> Report:
    task = Task("m", "t", (WINDOW - 128, *lengths), (6, 6), {})
    return Report(task, "model", ["text"], WINDOW)


def found_for(lengths, best, slope=1e-4):
    """V-shapes with their bottoms where best(length) says, the widest local window but one."""
    return {
        length: {
            (i, k): losses(slope * abs(shape((i, k), WINDOW)[0] - best(length)) + 0.01 * (k != 1))
            for i, k in GRID
        } for length in reversed(lengths)
    }


SAFE = default_config(WINDOW)


def test_one_length_has_one_best_map() -> None:
    state = report([16384])
    first, *others = choose_schedules(state, SAFE, found_for([16384], lambda length: 4096))
    assert first == flat(SAFE, 4096, 1024) and not others
    assert [(p.best, p.by_unseen) for p in state.points] == [(4096, 8192)]
    assert "4096/1024 (L/s1) is best at 16,384 tokens, of 24 maps" in state.reasons[0]


def test_what_cannot_be_told_from_the_best_comes_second() -> None:
    found = {16384: {(2, 1): losses(0.0), (2, 2): losses(1e-4), (1, 1): losses(2e-4),
                     (4, 1): losses(0.5)}}
    state = report([16384])
    assert choose_schedules(state, SAFE, found) == [flat(SAFE, 4096, 1024), flat(SAFE, 6144, 1536)]
    assert "cannot tell it from the best with L = 6144" in state.reasons[0]
    assert state.points[0].tied == (4096, 6144)


def test_one_constant_is_taken_where_it_is_enough() -> None:
    lengths = [12288, 16384, 24576]
    state = report(lengths)
    first, *_ = choose_schedules(state, SAFE, found_for(lengths, lambda length: 6144))
    assert first == flat(SAFE, 6144, 1536) and first.slope == 0
    assert "no curve is needed" in state.reasons[0]


def test_maps_that_were_not_asked_at_every_length_are_no_candidates() -> None:
    found = found_for([12288, 16384], lambda length: 4096)
    del found[12288][2, 1]
    first, *_ = choose_schedules(report([12288, 16384]), SAFE, found)
    assert first != flat(SAFE, 4096, 1024)


def test_a_curve_is_taken_where_the_points_need_one() -> None:
    lengths = [12288, 16384, 24576, 32768]
    wanted = dict(zip(lengths, [2048, 3072, 6144, 8192], strict=True))
    state = report(lengths)
    curve, constant = choose_schedules(state, SAFE, found_for(lengths, wanted.__getitem__))
    assert curve.slope > 0 == constant.slope
    for length, m in wanted.items():
        assert curve.mapping_length(length) == pytest.approx(m, abs=650)
    assert curve.plan(6000).is_identity  # inside the window, plain RoPE
    assert state.fit is not None and "the sigmoid meets the points" in state.reasons[0]


def test_a_bad_fit_gives_the_best_constant_and_says_so() -> None:
    lengths = [12288, 16384, 24576, 32768]
    wanted = dict(zip(lengths, [2048, 8192, 2048, 8192], strict=True))
    state = report(lengths)
    found = found_for(lengths, wanted.__getitem__)
    first, *_ = choose_schedules(state, SAFE, found)
    together = {cell: stacked(found[length][cell] for length in lengths) for cell in GRID}
    assert first == flat(SAFE, *shape(BOTH.best(together), WINDOW))
    assert "no sigmoid" in state.reasons[0]


def test_names_say_what_is_not_of_the_grid() -> None:
    config = flat(SAFE, 4096, 1024)
    changed = dataclasses.replace(config, tail_window=0, attention_factor=1.03)
    assert name_of(plain_inside(changed)) == "4096/1024 no tail x1.03 plain inside"
    assert name_of(dataclasses.replace(config, method="jetlong")) == "jetlong:1024"
