"""Maps of single layers in a calibration: a gain that was planted is found, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
import random
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lampe_gguf.calibration import job as calibration_job
from lampe_gguf.calibration.clock import Clock, OutOfTime
from lampe_gguf.calibration.job import calibrate
from lampe_gguf.calibration.layers import find_layers, groups_of, maps_to_try, with_map
from lampe_gguf.calibration.objective import Losses
from lampe_gguf.calibration.report import FITTED, HELD_OUT, Report, Task, name_of
from lampe_gguf.calibration.run import Calibration, carry_out
from lampe_gguf.calibration.search import flat
from lampe_gguf.cli.calibrate import show
from lampe_gguf.container.reader import GGUFFile
from lampe_gguf.conversation.documents import Document
from lampe_gguf.convert import convert_gguf
from lampe_gguf.evaluate.reading import Reading
from lampe_gguf.method.config import LampeConfig
from lampe_gguf.method.layers import LayerMap
from lampe_gguf.model.metadata import read
from lampe_gguf.model.presets import PRESETS, default_config

WINDOW = 8192
INSIDE, LONGEST = WINDOW - 128, 2 * WINDOW
SAFE = default_config(WINDOW)
BASE = flat(SAFE, 4096, 1024)
LAYERS = list(range(30))
RNG = np.random.default_rng(0)
OLD, FRESH = RNG.normal(1.0, 0.5, 24), RNG.normal(3.0, 0.5, 12)

Gains = dict[str, float]  # of a group at one of the two maps: what it adds to recall loss


def report() -> Report:
    return Report(Task("m", "t", (INSIDE, LONGEST), (24, 12), BASE.effective()), "m", ["t"], WINDOW)


def planted(config: LampeConfig, gains: Gains) -> float:
    """The sum over the groups that have a map; groups that nothing is said of lose."""
    total = 0.0
    for each in config.layer_maps:
        for group in groups_of(LAYERS):
            if set(group) <= set(each.layers):
                total += gains.get(str(dataclasses.replace(each, layers=group)), 0.02)
    return total


def losses(recall: float) -> Losses:
    return Losses(OLD + recall, FRESH.copy())


def search(
    value: Callable[[LampeConfig], float], time_for: int = 100
) -> tuple[LampeConfig | None, list[str], str]:
    """What find_layers finds, the maps that it asked under, and what it says."""
    state, asked = report(), []

    def ask(config: LampeConfig) -> Losses:
        if config != BASE and config not in asked:
            if len(asked) == time_for:
                raise OutOfTime
            asked.append(config)
        return losses(value(config))

    found = find_layers(state, ask, BASE, LAYERS)
    return found, [name_of(each) for each in asked], " | ".join(state.reasons)


def test_groups_are_neighbours() -> None:
    assert groups_of(LAYERS) == [tuple(range(i, i + 5)) for i in range(0, 30, 5)]
    assert groups_of([5, 11, 17]) == [(5,), (11,), (17,)]
    assert [len(group) for group in groups_of(range(32))] == [6, 6, 5, 5, 5, 5]
    assert groups_of([]) == []


def test_maps_that_are_tried_are_narrower_and_wider_than_the_uniform_one() -> None:
    assert maps_to_try(BASE) == [LayerMap((), 512, 64, 1024.0), LayerMap((), 4096, 200, 8192.0)]
    whole = flat(SAFE, 8192, 4096)
    assert maps_to_try(whole) == [LayerMap((), 1024, 128, 2048.0)]


@pytest.mark.parametrize("base", [
    *PRESETS.values(), flat(default_config(256), 32, 1), flat(default_config(256), 4, 1)])
def test_maps_that_are_tried_are_valid(base: LampeConfig) -> None:
    for own in maps_to_try(base):
        config = with_map(base, dataclasses.replace(own, layers=(1, 2)))
        assert config is not None and config.validate().layer_maps[0].layers == (1, 2)


def test_maps_of_the_same_values_are_one_and_there_are_four_at_most() -> None:
    one = with_map(BASE, LayerMap((3, 4), 512, 64, 1024.0))
    assert one is not None
    both = with_map(one, LayerMap((1, 2), 512, 64, 1024.0))
    assert both is not None and list(map(str, both.layer_maps)) == ["1-4:1024/512"]
    moved = with_map(both, LayerMap((2,), 256, 64, 1024.0))
    assert moved is not None
    assert list(map(str, moved.layer_maps)) == ["1,3-4:1024/512", "2:1024/256"]
    config: LampeConfig | None = BASE
    for i in range(4):
        assert config is not None
        config = with_map(config, LayerMap((i,), 100 + i, 64, 1024.0))
    assert config is not None and len(config.layer_maps) == 4
    assert with_map(config, LayerMap((4,), 200, 64, 1024.0)) is None
    assert with_map(config, LayerMap((3,), 200, 64, 1024.0)) is not None


@pytest.mark.parametrize("group", groups_of(LAYERS))
@pytest.mark.parametrize("own", maps_to_try(BASE), ids=str)
def test_a_gain_of_one_group_is_found(group: tuple[int, ...], own: LayerMap) -> None:
    wanted = str(dataclasses.replace(own, layers=group))
    found, asked, said = search(lambda config: planted(config, {wanted: -0.05}))
    assert found is not None and [str(each) for each in found.layer_maps] == [wanted]
    assert len(asked) == len(set(asked)) == 12
    assert "asked at 1024/512 and at 8192/4096, one by one" in said
    assert "1 of 12 gains beyond the noise" in said
    assert f"{wanted} has -0.050 +- 0.000 nats a token against 4096/1024, kept" in said


def test_gains_are_combined_as_long_as_the_sum_gains() -> None:
    gains = {"10-14:1024/512": -0.06, "25-29:1024/512": -0.04, "25-29:8192/4096": -0.03,
             "0-4:8192/4096": -0.05}

    def value(config: LampeConfig) -> float:
        text = name_of(config)
        # what 0-4 gains, 10-14 has taken away by then
        spoilt = 0.08 if "10-14" in text and "0-4" in text else 0.0
        return planted(config, gains) + spoilt

    found, asked, said = search(value)
    assert found is not None
    assert [str(each) for each in found.layer_maps] == ["10-14,25-29:1024/512"]
    assert len(asked) == 14 and "4 of 12 gain beyond the noise" in said
    assert "0-4:8192/4096 has +0.030 +- 0.000 nats a token on top of that, left out" in said
    assert "25-29:1024/512 has -0.040 +- 0.000 nats a token on top of that, kept" in said


def test_what_noise_alone_may_do_is_no_gain() -> None:
    state = report()

    def ask(config: LampeConfig) -> Losses:
        if not config.layer_maps:
            return losses(0.0)
        return Losses(OLD - 0.01 + 0.1 * np.resize([1, -1], 24), FRESH)  # error 0.02

    assert find_layers(state, ask, BASE, LAYERS) is None
    assert "0 of 12 gain beyond the noise, so all layers keep one map" in state.reasons[0]


def test_a_search_that_is_cut_short_keeps_what_it_found() -> None:
    gains = {"0-4:1024/512": -0.05, "25-29:1024/512": -0.2}
    found, asked, said = search(lambda config: planted(config, gains), time_for=5)
    assert found is not None and str(found.layer_maps[0]) == "0-4:1024/512" and len(asked) == 5
    assert "5 of 12 were asked under, out of time; give more --budget and --resume" in said
    found, _, said = search(lambda config: planted(config, gains), time_for=12)
    assert found is not None and str(found.layer_maps[0]) == "25-29:1024/512"
    assert "0-4:1024/512 was not tried on top of that: out of time" in said
    found, _, said = search(lambda config: planted(config, gains), time_for=0)
    assert found is None and "0 of 12 were asked under" in said and "so all" not in said


def test_a_model_of_one_layer_has_nothing_to_search() -> None:
    state = report()
    assert find_layers(state, lambda config: losses(0.0), BASE, [5]) is None
    assert state.reasons[0].startswith("maps of single layers were not tried: the model has fewer")


class Known(Calibration):
    """A calibration whose losses are computed: no model, and no text."""

    def __init__(
        self, value: Callable[[str, LampeConfig], float], path: Path | None = None
    ) -> None:
        baseline = flat(SAFE, 8192, 4096)
        super().__init__(
            None, report(), {}, path, Clock(None, 1.0, 1.0), baseline, lambda stage: None)
        self.value = value
        self.order: list[tuple[str, int, bool]] = []

    def losses(self, segment: str, length: int, config: LampeConfig) -> Losses:
        known = self.report.get(segment, length, config)
        if known is None:
            self.order.append((segment, length, bool(config.layer_maps)))
            recall = self.value(segment, config) if length == LONGEST else 0.0
            self.report.add(segment, length, config, losses(recall))
        return known or losses_of(self.report, segment, length, config)


def losses_of(state: Report, segment: str, length: int, config: LampeConfig) -> Losses:
    found = state.get(segment, length, config)
    assert found is not None
    return found


@pytest.mark.parametrize(("there", "taken", "said"), [
    (-0.05, True, "against 4096/1024, one map for all layers: better beyond the noise"),
    (0.0, False, "against 4096/1024, one map for all layers: no gain beyond the noise, not taken"),
])
def test_held_out_text_decides_about_maps_of_single_layers(
    tmp_path: Path, there: float, taken: bool, said: str
) -> None:
    wanted = "10-14:1024/512"

    def value(segment: str, config: LampeConfig) -> float:
        uniform = dataclasses.replace(config, layer_maps=())
        gain = -0.05 if segment == FITTED else there
        return (planted(config, {wanted: gain})
                + (0.0 if uniform.effective() == BASE.effective() else 0.3))

    path = tmp_path / "r.json"
    work = Known(value, path)
    carry_out(work, SAFE, 4 * WINDOW, LAYERS)
    state = work.report
    assert state.complete and state.config is not None
    assert [str(each) for each in state.config.layer_maps] == ([wanted] if taken else [])
    assert (state.config.max_mapping_length, state.config.local_window) == (4096.0, 1024)
    assert state.config.provenance.startswith(
        "calibrated layer by layer on t" if taken else "calibrated on t")
    assert any(said in reason for reason in state.reasons)
    assert sum(each.kind == "layers" for each in state.candidates) == 12
    # none of it needs a new reading: all are asked before the text is cut back
    lengths = [length for segment, length, _ in work.order if segment == FITTED]
    assert lengths == sorted(lengths, reverse=True)
    saved = json.loads(path.read_text())
    assert LampeConfig(**saved["config"]) == state.config
    assert saved["config"]["version"] == (2 if taken else 1)
    shown = [each["name"] for each in saved["held_out"]]
    assert shown[0] == "8192/4096" and f"4096/1024 but {wanted}" in shown


def test_maps_of_single_layers_are_not_looked_at_unless_wanted() -> None:
    work = Known(lambda segment, config: planted(config, {}))
    carry_out(work, SAFE, 4 * WINDOW)
    assert not any(layered for *_, layered in work.order)
    assert not any("single layers" in reason for reason in work.report.reasons)


TINY = 256
TO = 384
EXCERPTS = (5, 3)
PLANTED = 1  # the layer that gains where it is narrower than others


@pytest.fixture
def model(tiny: Callable[..., Path]) -> Path:
    return tiny(window=TINY, lampe=None, n_layer=4)


@pytest.fixture
def document() -> Document:
    letters = random.Random(0)
    text = "".join(letters.choice(string.ascii_lowercase + "  ") for _ in range(5 * TO))
    return Document("letters", text)


def run(model: Path, document: Document, path: Path, **options: Any) -> Report:
    return calibrate(model, [document], report=path, budget=None, max_length=TO, threads=1,
                     layers=True, **options)


def test_a_planted_gain_gets_from_the_reading_into_the_file(
    model: Path, document: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_job, "EXCERPTS", (EXCERPTS,))
    real = Reading.losses

    def better(self: Reading, config: LampeConfig, *excerpts: Any) -> Any:
        old, fresh = real(self, config, *excerpts)
        own, other = (config.for_layer(layer).max_mapping_length for layer in (PLANTED, 40))
        return (old - 3.0 if own < other else old), fresh

    monkeypatch.setattr(Reading, "losses", better)
    path = tmp_path / "r.json"
    found = run(model, document, path)
    assert found.complete and found.config is not None
    (own,) = found.config.layer_maps[:1]
    assert PLANTED in own.layers and own.max_mapping_length < found.config.max_mapping_length
    assert LampeConfig(**json.loads(path.read_text())["config"]) == found.config
    out = convert_gguf(model, tmp_path / "out.gguf", config=found.config).outputs[0]
    with GGUFFile(out) as file:
        assert read(file, "llama") == found.config and found.config.version == 2

    counted: list[int] = []
    again = run(model, document, path, resume=True,
                on_progress=lambda done, total: counted.append(done))
    assert not counted and (again.config, again.reasons) == (found.config, found.reasons)
    plain = calibrate(model, [document], report=path, budget=None, threads=1, resume=True)
    assert plain.config is not None and not plain.config.layer_maps


def test_an_interruption_of_the_search_is_gone_on_with(
    model: Path, document: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_job, "EXCERPTS", (EXCERPTS,))
    path, stage = tmp_path / "r.json", [""]

    def stop(done: int, total: int) -> None:
        assert done <= total
        if stage[-1] == "maps of single layers":
            stage.append(stage[-1])
        if len(stage) > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, document, path, on_progress=stop, on_stage=stage.append)
    kept = json.loads(path.read_text())["losses"]
    assert 0 < sum('"layers"' in name for name in kept) < 8
    whole = run(model, document, path, resume=True)
    assert whole.losses.keys() >= kept.keys() and whole.complete
    assert sum(each.kind == "layers" for each in whole.candidates) >= 8
    assert any(name.startswith(HELD_OUT) for name in whole.losses)


def test_command_says_what_came_of_it(model: Path, document: Document, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text(document.text)
    done = subprocess.run(
        [sys.executable, "-m", "lampe_gguf.cli.main", "calibrate", str(model), "--text", str(text),
         "--max-length", str(TO), "--threads", "1", "--layers", "--json"],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert any("the groups 0 1 2 3 were asked at" in each for each in found["reasons"])
    assert LampeConfig(**found["config"]).validate()


def test_the_map_of_each_layer_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    state = report()
    state.config = with_map(BASE, LayerMap((10, 11, 14), 512, 64, 1024.0))
    show(state)
    said = capsys.readouterr().out
    assert "max_mapping_length=4096.0" in said and "but in layers 10-11,14:1024/512 (L/s1)" in said
