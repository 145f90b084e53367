"""The search and the curve of a calibration, on losses whose answer is known."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from time_limit import time_limit

from lampe_gguf.calibration.choice import choose_schedule, flat
from lampe_gguf.calibration.fit import fit_sigmoid
from lampe_gguf.calibration.job import _longest, ladder, reading_seconds, tail_of
from lampe_gguf.calibration.reading import shared_prefix
from lampe_gguf.calibration.report import Report, Task, load_readings, longest_length
from lampe_gguf.calibration.run import HELD_OUT, Calibration, Clock, carry_out
from lampe_gguf.calibration.search import is_worse, propose, tied
from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.method.schedule import scaled_sigmoid
from lampe_gguf.model.presets import PRESETS, default_config

WINDOW = 8192


def search(curves, low, high, resolution):
    """Evaluate what propose asks for; returns the candidates in order."""
    order = [low, high]
    values = {x: np.array([curve(x) for curve in curves]) for x in order}
    while (x := propose(values, resolution)) is not None:
        assert x not in values
        order.append(x)
        values[x] = np.array([curve(x) for curve in curves])
    return order, values


@pytest.mark.parametrize("best", [1024, 1500, 3000, 5003, 8000, 8192])
def test_search_finds_the_bottom_of_a_v(best):
    order, values = search([lambda x: abs(x - best)], 1024, 8192, 256)
    assert abs(min(values, key=lambda x: values[x][0]) - best) <= 256
    assert len(order) <= 2 + 2 * 5  # two readings a halving at most


def test_search_serves_several_curves():
    bests = 2000, 4000, 8192
    order, values = search([lambda x, b=b: abs(x - b) for b in bests], 1024, 8192, 256)
    for i, best in enumerate(bests):
        assert abs(min(values, key=lambda x: values[x][i]) - best) <= 256
    assert len(order) < 20


def test_search_stops_at_the_resolution():
    assert propose({1000: np.array([1.0]), 1200: np.array([0.0])}, 200) is None
    assert propose({1000: np.array([1.0]), 1201: np.array([0.0])}, 200) == 1100


def test_ties_are_paired():
    # pieces differ by far more than the candidates do, and always in the same way
    hard = np.array([1.0, 3.0, 2.0, 5.0, 4.0, 1.5])
    jitter = np.array([1, -1, 1, -1, 1, -1]) * 1e-4
    losses = {1: hard + 0.01 + jitter, 2: hard, 3: hard + 1e-5 + jitter}
    assert tied(losses) == (2, [2, 3])
    assert is_worse(losses[1], losses[2])
    assert not is_worse(losses[2], losses[1])


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


def report(lengths):
    return Report(Task("m", "t", tuple(lengths), 1024), "model", ["text"], WINDOW)


def losses_for(lengths, best, candidates, slope=1e-5):
    """V-shapes with their bottoms where best(length) says; plain RoPE where m >= length."""
    pieces = np.linspace(-1, 1, 16)
    return {
        m: np.array([3 + slope * abs(min(m, x) - best(x)) + pieces for x in lengths])
        for m in candidates
    }


CANDIDATES = [2048, 3072, 4096, 5120, 6144, 7168, 8192]


def test_one_constant_is_taken_where_it_is_enough():
    lengths = [4096, 8192, 12288, 16384]
    found = losses_for(lengths, lambda length: min(length, 8192), CANDIDATES)
    state = report(lengths)
    config = choose_schedule(state, default_config(WINDOW), 4096, found)
    assert config == flat(default_config(WINDOW), 8192, 4096)
    assert [p.best for p in state.points] == [4096, 8192, 8192, 8192]
    assert "no curve is needed" in state.reasons[0]


def test_a_curve_is_taken_where_the_points_need_one():
    lengths = [4096, 8192, 12288, 16384, 24576, 32768]

    def best(length):
        if length <= WINDOW:
            return length
        return round(scaled_sigmoid(length, 7000.0, 1.5e-4, -2.5))

    found = losses_for(lengths, best, range(1024, 8193, 512))
    state = report(lengths)
    config = choose_schedule(state, default_config(WINDOW), 1024, found)
    assert config.slope > 0
    for length in (12288, 16384, 24576, 32768):
        assert config.mapping_length(length) == pytest.approx(best(length), abs=500)
    assert config.mapping_length(6000) >= 6000  # inside the window, plain RoPE was best


def test_a_bad_fit_gives_the_best_constant_and_says_so():
    lengths = [12288, 16384, 24576, 32768]
    wanted = dict(zip(lengths, [2048, 8192, 2048, 8192], strict=True))
    found = losses_for(lengths, wanted.__getitem__, CANDIDATES)
    state = report(lengths)
    config = choose_schedule(state, default_config(WINDOW), 1024, found)
    assert config.slope == 0
    assert config.max_mapping_length == min(found, key=lambda m: found[m].mean())
    assert "no sigmoid" in state.reasons[0]


@pytest.mark.parametrize("m", [64, 1000, 4096, 8192])
@pytest.mark.parametrize("local_window", [16, 512, 6144])
def test_constants_are_valid(m, local_window):
    config = flat(default_config(WINDOW), m, local_window).validate()
    assert config.mapping_length(30000) == m


def test_shared_prefix_is_where_the_plans_are_the_same():
    base = default_config(WINDOW)
    small = flat(base, 4096, 1024)
    assert shared_prefix(base, small, 16384) == 4096
    assert shared_prefix(base, base, 16384) == 16384
    assert shared_prefix(base, dataclasses.replace(base, local_window=2048), 16384) == 8192
    assert shared_prefix(base, dataclasses.replace(base, length_policy="prompt"), 16384) == 0
    assert shared_prefix(base, dataclasses.replace(base, attention_factor=1.1), 16384) == 0
    for at in range(512, 4097, 512):
        assert base.plan(at) == small.plan(at)


def test_ladder_and_tail():
    assert ladder(8192, 16384) == (4096, 8192, 10240, 12288, 16384)
    assert ladder(8192, 14000)[-1] == 14000
    assert tail_of(8192) == 1024 and tail_of(64) == 16
    for window in (64, 2048, 8192):
        lengths = ladder(window, 4 * window)
        gaps = [b - a for a, b in zip((0, *lengths), lengths, strict=False)]
        assert min(gaps) >= tail_of(window)  # the tails do not overlap
    assert reading_seconds(16384, 8192, 300) > 2 * reading_seconds(8192, 8192, 300)


def test_report_comes_back(tmp_path: Path):
    state = report([8192, 16384])
    config = default_config(WINDOW)
    losses = np.full((2, 16), np.nan)
    losses[1] = 2.5
    state.add("fitted", config, losses)
    state.seconds = 12.0
    path = tmp_path / "r.json"
    state.save(path)
    json.loads(path.read_text())
    readings, seconds = load_readings(path, state.task)
    assert seconds == 12.0
    again = Report(state.task, "model", ["text"], WINDOW, readings)
    np.testing.assert_array_equal(again.losses("fitted", config), losses)
    assert again.losses("held-out", config) is None
    assert again.losses("fitted", dataclasses.replace(config, local_window=99)) is None
    assert again.losses("fitted", dataclasses.replace(config, provenance="x")) is not None


@pytest.mark.parametrize(("gain", "noise", "taken", "said"), [
    (0.05, 0.01, True, "gain 0.05"),
    (0.001, 0.03, False, "within the noise: the safe values stay"),
    (-0.001, 0.03, False, "lose"),
    (-0.05, 0.01, False, "lose"),
])
def test_only_a_gain_beyond_the_noise_of_held_out_text_counts(
    tmp_path: Path, gain: float, noise: float, taken: bool, said: str
) -> None:
    state = report([8192, 16384])
    baseline = default_config(WINDOW)
    candidate = flat(baseline, 4096, 1024)
    rng = np.random.default_rng(0)
    before = rng.normal(3.0, 0.5, (2, 16))
    spread = rng.normal(size=(2, 16))
    after = before - gain + noise * (spread - spread.mean())
    state.add(HELD_OUT, baseline, before)
    state.add(HELD_OUT, candidate, after)
    work = Calibration(None, state, {}, tmp_path / "r.json", Clock(deadline=0.0, reading=1.0),
                       lambda _: None, lambda _: None)
    assert work.decide(baseline, candidate) == (candidate if taken else baseline)
    assert said in state.reasons[-1]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2}', "nonsense"])
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(LampeError, match="run without --resume"):
        load_readings(path, report([8192]).task)


@pytest.mark.parametrize("name", ["fifo", "/dev/null"])
def test_a_report_that_is_no_regular_file_is_refused_at_once(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name == "fifo":
        os.mkfifo(path)
    for read in (longest_length, lambda path: load_readings(path, report([8192]).task)):
        with time_limit(5), pytest.raises(UsageError, match="is not a regular file"):
            read(path)


def test_a_report_of_another_text_is_refused(tmp_path: Path):
    state = report([8192, 16384])
    path = tmp_path / "r.json"
    state.save(path)
    other = dataclasses.replace(state.task, text="other")
    with pytest.raises(LampeError, match="text differ"):
        load_readings(path, other)


def test_no_report_is_an_empty_one(tmp_path: Path):
    assert load_readings(tmp_path / "none.json", report([8192]).task) == ({}, 0.0)


def at_once(state: Report, path: Path) -> Calibration:
    """A calibration that has no time for any reading, only those that the report holds."""
    return Calibration(None, state, {}, path, Clock(deadline=0.0, reading=1.0),
                       lambda _: None, lambda _: None)


@pytest.mark.parametrize("alternative", [False, True])
def test_what_was_not_compared_is_not_called_no_better(tmp_path: Path, alternative: bool) -> None:
    state = report([8192, 16384])
    safe = default_config(WINDOW)
    losses = np.random.default_rng(0).normal(3.0, 0.5, (2, 16))
    state.add("fitted", safe, losses)
    state.add(HELD_OUT, safe, losses)
    if alternative:
        state.add("fitted", flat(safe, WINDOW, 512), losses - 0.1)
    carry_out(at_once(state, tmp_path / "r.json"), safe, safe)
    assert state.config == safe and not state.complete
    said = " | ".join(state.reasons)
    if alternative:
        assert "the local window was sought among 2 values: out of time" in said
        assert "no time for the held-out text" in said
        assert [each.name for each in state.held_out] == ["baseline"]
    else:
        assert "nothing but the safe values was read" in said and not state.held_out


def test_a_preset_of_the_same_values_is_no_gain(tmp_path: Path) -> None:
    state = report([8192, 16384])
    safe = default_config(WINDOW)
    preset = dataclasses.replace(safe, provenance="the preset", context_length=WINDOW * 8)
    state.add(HELD_OUT, safe, np.random.default_rng(0).normal(3.0, 0.5, (2, 16)))
    assert at_once(state, tmp_path / "r.json").decide(preset, safe) is preset
    assert not state.reasons


def test_what_gains_on_the_held_out_text_is_taken(tmp_path: Path) -> None:
    state = report([8192, 16384])
    safe = default_config(WINDOW)
    other = flat(safe, WINDOW, 512)
    losses = np.random.default_rng(0).normal(3.0, 0.5, (2, 16))
    for name in ("fitted", HELD_OUT):
        state.add(name, safe, losses)
        state.add(name, other, losses - 0.1)
    carry_out(at_once(state, tmp_path / "r.json"), safe, safe)
    assert state.config is not None and state.config.effective() == other.effective()
    assert state.config.provenance.startswith("calibrated on") and state.complete


def test_a_length_that_was_asked_for_is_not_exceeded() -> None:
    assert _longest(9300, 10**6, WINDOW, 100.0, 60.0, given=True) == 9300
    assert ladder(WINDOW, 9300) == (4096, 8192, 9300)


def test_a_clock_believes_what_it_measured_more_than_an_estimate() -> None:
    clock = Clock(deadline=None, reading=300.0)
    for seconds in (20.0, 30.0, 10.0):
        clock.took(seconds)
    assert clock.reading == 30.0
