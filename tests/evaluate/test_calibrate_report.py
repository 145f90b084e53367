"""What a calibration keeps, and what it concludes from losses whose answer is known."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from time_limit import time_limit

from lampe_gguf.calibration.choice import plain_inside
from lampe_gguf.calibration.clock import Clock
from lampe_gguf.calibration.job import choose_size, ladder, reading_seconds
from lampe_gguf.calibration.objective import Losses
from lampe_gguf.calibration.report import (
    FITTED,
    HELD_OUT,
    Report,
    Task,
    load_losses,
    saved_task,
)
from lampe_gguf.calibration.run import Calibration, carry_out
from lampe_gguf.calibration.search import START, flat, shape
from lampe_gguf.calibration.verdict import decide, judged, perplexity_says
from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.evaluate.perplexity import plain_rope
from lampe_gguf.model.presets import default_config

WINDOW = 8192
INSIDE, LONGEST = WINDOW - 128, 2 * WINDOW
SAFE = default_config(WINDOW)
BASELINE = flat(SAFE, 8192, 4096)
CANDIDATE = flat(SAFE, 4096, 1024)
PLAIN = plain_rope(WINDOW, 4 * WINDOW)
RNG = np.random.default_rng(0)
OLD, FRESH = RNG.normal(1.0, 0.5, 24), RNG.normal(3.0, 0.5, 12)
SPREAD = RNG.normal(size=24)


def report() -> Report:
    task = Task("m", "t", (INSIDE, LONGEST), (24, 12), BASELINE.effective())
    return Report(task, "model", ["text"], WINDOW)


def losses(recall: float, unseen: float = 0.0, noise: float = 0.0) -> Losses:
    return Losses(OLD + recall + noise * (SPREAD - SPREAD.mean()), FRESH + unseen)


def work_on(state: Report, path: Path) -> Calibration:
    """A calibration that has no time for any question, only the losses that the report holds."""
    return Calibration(None, state, {}, path, Clock(0.0, 1.0, 1.0), BASELINE, lambda _: None)


def test_report_comes_back(tmp_path: Path) -> None:
    state, path = report(), tmp_path / "r.json"
    state.add(FITTED, LONGEST, CANDIDATE, losses(0.0))
    state.seconds = 12.0
    state.candidates = judged(state, FITTED, BASELINE, [CANDIDATE])
    state.save(path)
    saved = json.loads(path.read_text())
    assert saved["candidates"][0]["recall"] == [None, pytest.approx(OLD.mean())]
    assert saved_task(path) == state.task
    found, seconds = load_losses(path, state.task)
    assert seconds == 12.0
    again = Report(state.task, "model", ["text"], WINDOW, losses=found)
    known = again.get(FITTED, LONGEST, dataclasses.replace(CANDIDATE, provenance="x"))
    assert known is not None
    np.testing.assert_array_equal(known.old, OLD)
    np.testing.assert_array_equal(known.fresh, FRESH)
    assert again.get(HELD_OUT, LONGEST, CANDIDATE) is None
    assert again.get(FITTED, INSIDE, CANDIDATE) is None
    assert again.get(FITTED, LONGEST, BASELINE) is None


@pytest.mark.parametrize("content", [
    "", "[]", "{}", "nonsense", '{"format": 2}', '{"format": 2, "task": {}, "losses": {}}'])
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(LampeError, match="is not a calibration report; give another --report"):
        load_losses(path, report().task)


def test_a_report_of_the_time_of_perplexity_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"format": 1, "task": {"tail": 1024}, "readings": {}}))
    for read in (saved_task, lambda path: load_losses(path, report().task)):
        with pytest.raises(LampeError, match="of another version of calibrate.* give another"):
            read(path)


@pytest.mark.parametrize("name", ["fifo", "/dev/null"])
def test_a_report_that_is_no_regular_file_is_refused_at_once(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name == "fifo":
        os.mkfifo(path)
    for read in (saved_task, lambda path: load_losses(path, report().task)):
        with time_limit(5), pytest.raises(UsageError, match="is not a regular file"):
            read(path)


@pytest.mark.parametrize("change", [
    {"text": "other"}, {"read_with": CANDIDATE.effective()}, {"lengths": (INSIDE, 9300)}])
def test_a_report_of_another_task_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    state, path = report(), tmp_path / "r.json"
    state.save(path)
    other = dataclasses.replace(state.task, **change)  # type: ignore[arg-type]
    with pytest.raises(LampeError, match=f"{next(iter(change))} differ"):
        load_losses(path, other)


def test_no_report_is_an_empty_one(tmp_path: Path) -> None:
    assert load_losses(tmp_path / "none.json", report().task) == ({}, 0.0)
    assert saved_task(tmp_path / "none.json") is None


def held_out(state: Report, within: float = 0.0, **difference: float) -> None:
    """What the held-out text says, the candidate against the baseline."""
    for length in (INSIDE, LONGEST):
        state.add(HELD_OUT, length, BASELINE, losses(0.0))
    state.add(HELD_OUT, INSIDE, PLAIN, losses(0.0))
    state.add(HELD_OUT, INSIDE, CANDIDATE, losses(within))
    state.add(HELD_OUT, LONGEST, CANDIDATE, losses(**difference))


@pytest.mark.parametrize(("difference", "taken", "said"), [
    ({"recall": -0.05, "noise": 0.01}, True, "-0.050 +-"),
    ({"recall": -0.001, "noise": 0.03}, False, "no gain beyond the noise"),
    ({"recall": 0.001, "noise": 0.03}, False, "no gain"),
    ({"recall": 0.05, "noise": 0.01}, False, "no gain"),
    ({"recall": -0.05, "unseen": 0.06, "noise": 0.01}, False, "no gain"),
    ({"recall": -0.05, "noise": 0.01, "within": 0.02}, False, "but inside the window"),
    ({"recall": -0.05, "noise": 0.01, "within": -0.02}, True, "-0.050 +-"),
])
def test_only_a_gain_beyond_the_noise_of_held_out_text_counts(
    difference: dict[str, float], taken: bool, said: str
) -> None:
    state = report()
    held_out(state, **difference)
    found = decide(state, BASELINE, PLAIN, [CANDIDATE], [CANDIDATE])
    assert found == (CANDIDATE if taken else BASELINE)
    assert said in state.reasons[0]
    assert state.reasons[1].startswith("taken: 4096/1024" if taken else "what convert would write")


def test_the_better_of_two_finalists_is_taken() -> None:
    state = report()
    held_out(state, recall=-0.05)
    other = flat(SAFE, 6144, 1536)
    for length, gain in ((INSIDE, 0.0), (LONGEST, -0.1)):
        state.add(HELD_OUT, length, other, losses(gain))
    finalists = [CANDIDATE, other]
    assert decide(state, BASELINE, PLAIN, finalists, finalists) == other


def test_what_was_not_read_is_not_decided() -> None:
    state = report()
    assert decide(state, BASELINE, PLAIN, [CANDIDATE], []) is None
    assert "no time for the held-out text" in state.reasons[0]
    assert decide(state, BASELINE, PLAIN, [], []) is BASELINE


def test_what_perplexity_would_have_chosen_is_said() -> None:
    state = report()
    state.add(FITTED, LONGEST, BASELINE, losses(0.5, -0.02))
    state.add(FITTED, LONGEST, CANDIDATE, losses(0.0, 0.0))
    perplexity_says(state, [BASELINE, CANDIDATE])
    assert "perplexity alone would have chosen 8192/4096 and not 4096/1024" in state.reasons[0]
    assert "recall +0.500" in state.reasons[0] and "unseen -0.020" in state.reasons[0]
    state.add(FITTED, LONGEST, CANDIDATE, losses(0.0, -0.1))
    perplexity_says(state, [BASELINE, CANDIDATE])
    assert "would have chosen the same, 4096/1024" in state.reasons[1]


def fitted(state: Report, best: float, within: float) -> None:
    """What the fitted text says: the first map that is tried, better than all others by so much."""
    state.add(FITTED, LONGEST, BASELINE, losses(0.0))
    for i, cell in enumerate([*START, (3, 1), (2, 0), (2, 2)]):
        config = flat(SAFE, *shape(cell, WINDOW))
        state.add(FITTED, LONGEST, config, losses(best if i == 0 else 0.0))
    state.add(FITTED, INSIDE, PLAIN, losses(0.0))
    state.add(FITTED, INSIDE, CANDIDATE, losses(within))


@pytest.mark.parametrize(("best", "within", "result"), [
    (-0.1, 0.0, CANDIDATE),
    (-0.1, 0.1, plain_inside(CANDIDATE)),
    (0.1, 0.0, None),
])
def test_a_calibration_from_losses_that_are_known(
    tmp_path: Path, best: float, within: float, result: object
) -> None:
    state, path = report(), tmp_path / "r.json"
    fitted(state, best, within)
    held_out(state, recall=-0.1)
    for length, gain in ((INSIDE, 0.0), (LONGEST, -0.1)):
        state.add(HELD_OUT, length, plain_inside(CANDIDATE), losses(gain))
    carry_out(work_on(state, path), SAFE, 4 * WINDOW)
    assert state.config is not None
    if result is None:  # there was no time to see about the one that is best then
        assert state.config == BASELINE and not state.complete
        return
    assert state.complete and state.config.effective() == result.effective()  # type: ignore
    assert state.config.provenance.startswith("calibrated on text to 16384 tokens")
    assert {each.kind for each in state.held_out} == {"baseline", "calibrated", "plain"}
    assert state.held_out[1].difference == pytest.approx(-0.1)
    said = " | ".join(state.reasons)
    assert ("plain RoPE stays there" in said) == (within > 0)
    assert json.loads(path.read_text())["complete"]


def test_what_convert_would_write_may_be_the_best(tmp_path: Path) -> None:
    state = report()
    fitted(state, 0.0, 0.0)
    for cell, value in (((0, 1), -0.05), ((0, 0), -0.1), ((0, 2), 0.0), ((1, 0), 0.0)):
        state.add(FITTED, LONGEST, flat(SAFE, *shape(cell, WINDOW)), losses(value))
    state.add(FITTED, INSIDE, BASELINE, losses(0.0))
    carry_out(work_on(state, tmp_path / "r.json"), SAFE, 4 * WINDOW)
    assert state.config is not None and state.config.effective() == BASELINE.effective()
    assert state.complete and "none better found on text" in state.config.provenance
    assert "8192/4096 is what convert would write" in state.reasons


def test_a_search_that_was_cut_short_says_nothing_of_what_it_did_not_see(tmp_path: Path) -> None:
    state = report()
    fitted(state, 0.0, 0.0)
    state.add(FITTED, LONGEST, BASELINE, losses(-0.1))  # better than all that were asked under
    carry_out(work_on(state, tmp_path / "r.json"), SAFE, 4 * WINDOW)
    assert state.config == BASELINE and not state.complete
    assert state.reasons[0].startswith("the map was sought among ")
    assert state.reasons[-1] == "the search is not over: give more --budget and --resume"


def test_a_budget_without_a_single_map_is_refused(tmp_path: Path) -> None:
    state = report()
    state.add(FITTED, LONGEST, BASELINE, losses(0.0))
    with pytest.raises(UsageError, match="--budget holds not even"):
        carry_out(work_on(state, tmp_path / "r.json"), SAFE, 4 * WINDOW)


def test_lengths() -> None:
    assert ladder(8192, 16384) == (8064, 16384)
    assert ladder(8192, 9300) == (8064, 9300)
    assert ladder(8192, 32768) == (8064, 12288, 16384, 24576, 32768)
    assert reading_seconds(16384, 8192, 300) > 2 * reading_seconds(8192, 8192, 300)


def test_a_small_text_or_budget_means_fewer_excerpts_then_a_shorter_text() -> None:
    much = 10**6

    def size(tokens: int, budget: float | None = None, longest: int | None = None) -> object:
        return choose_size(tokens, 8192, 300.0, budget, longest)

    assert size(much) == ((8064, 16384), (48, 24))
    assert size(much, 1000.0) == ((8064, 16384), (24, 12))
    assert size(much, 1.0) == ((8064, 12288), (12, 6))
    assert size(2 * 16384 + 800) == ((8064, 16384), (12, 6))
    assert size(2 * 16384) == ((8064, 12288), (48, 24))
    assert size(much, 1.0, 9300) == ((8064, 9300), (12, 6))
    with pytest.raises(LampeError, match="or --max-length 10366"):
        size(21500)
    with pytest.raises(LampeError, match="give more text$"):
        size(20000, longest=16384)


def test_a_clock_believes_what_it_measured_more_than_an_estimate() -> None:
    clock = Clock(None, reading=300.0, asking=100.0)
    for seconds in (20.0, 30.0, 10.0):
        clock.took(0.5, seconds, 1.0)
    clock.took(0.01, 5.0, 2.0)
    assert (clock.reading, clock.asking) == (60.0, 2.0)
