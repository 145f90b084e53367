"""Calibration of a real file by the real backend, on a tiny model."""

from __future__ import annotations

import dataclasses
import json
import random
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.calibration import clock as calibration_clock
from lampe_gguf.calibration import job as calibration_job
from lampe_gguf.calibration import run as calibration_run
from lampe_gguf.calibration.job import calibrate
from lampe_gguf.container.reader import GGUFFile
from lampe_gguf.conversation.documents import Document
from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.evaluate import reading as evaluate_reading
from lampe_gguf.evaluate.reading import CUE, ROOM, SCORED, SEPARATOR, SIZE, starts_of
from lampe_gguf.method.config import LampeConfig
from lampe_gguf.model.metadata import read

PROGRAM = [sys.executable, "-m", "lampe_gguf.cli.main", "calibrate"]
WINDOW = 256
LONGEST = 384
INSIDE = WINDOW - ROOM
EXCERPTS = (5, 3)
STRETCH = LONGEST + EXCERPTS[1] * SIZE


@pytest.fixture
def model(tiny):
    return tiny(window=WINDOW, lampe=None)


@pytest.fixture
def document():
    letters = random.Random(0)
    text = "".join(letters.choice(string.ascii_lowercase + "  ") for _ in range(3 * STRETCH))
    return Document("letters", text)


@pytest.fixture(autouse=True)
def few_excerpts(monkeypatch):
    monkeypatch.setattr(calibration_job, "EXCERPTS", (EXCERPTS,))


def run(model, document, path, **options):
    return calibrate(model, [document], report=path, budget=options.pop("budget", None),
                     max_length=options.pop("max_length", LONGEST), threads=1, **options)


def as_progress(took):
    """on_progress for what is called with the tokens just read."""
    before = 0

    def tell(done, total):
        nonlocal before
        assert before <= done <= total
        took(done - before)
        before = done

    return tell


def asked_anew(model, text, segment, length, config, read_with):
    """Losses of every excerpt, each read behind the text in a context of its own."""
    llm = LampeLlama(model, lampe=read_with, n_ctx=LONGEST + ROOM, n_threads=1, n_threads_batch=1)
    tokens = llm.tokenize(text.encode())
    if segment == "held-out":
        tokens = tokens[STRETCH:]
        if llm._model.add_bos_token():  # every text of such a model begins with it
            tokens[0] = llm.token_bos()
    starts = [*starts_of(length, EXCERPTS[0]), *(LONGEST + i * SIZE for i in range(EXCERPTS[1]))]
    found = []
    for start in starts:
        llm.set_config(read_with)
        llm.reset()
        llm.eval(tokens[:length])
        llm.set_config(config)
        fed = [*llm.tokenize(SEPARATOR.encode(), False, False), *tokens[start : start + SIZE]]
        logits = np.concatenate([part.copy() for _, part in llm.read_logits(fed)])
        scored = np.arange(len(fed) - SCORED, len(fed))
        total = np.log(np.exp(logits[scored - 1].astype(np.float64)).sum(axis=1))
        found.append(float((total - logits[scored - 1, np.array(fed)[scored]]).mean()))
    llm.close()
    return found


@pytest.mark.parametrize("add_bos", [False, True])
def test_losses_are_those_of_questions_asked_anew(tiny, document, tmp_path, add_bos):
    model = tiny(window=WINDOW, lampe=None, add_bos=add_bos)
    report = run(model, document, tmp_path / "r.json")
    assert report.complete and report.config is not None
    assert report.task.lengths == (INSIDE, LONGEST) and report.task.excerpts == EXCERPTS
    names = list(report.losses)
    assert len(names) >= 20 and CUE + SCORED == SIZE
    read_with = LampeConfig(**report.task.read_with, context_length=4 * WINDOW)
    # what was asked late has all that was asked before behind it
    for name in (*names[:2], *names[-12::2]):
        segment, length, values = name.split(" ", 2)
        config = LampeConfig(**json.loads(values), context_length=4 * WINDOW)
        want = asked_anew(model, document.text, segment, int(length), config,
                          read_with if segment == "fitted" else config)
        found = report.losses[name]
        np.testing.assert_allclose([*found["old"], *found["fresh"]], want, rtol=1e-4)


def test_every_map_is_in_the_report_with_both_losses(model, document, tmp_path):
    report = run(model, document, tmp_path / "r.json")
    kinds = [each.kind for each in report.candidates]
    assert kinds[0] == "baseline" and kinds.count("rival") == 2 and kinds[-1] == "plain"
    assert kinds.count("map") >= 6
    for each in report.candidates:
        if each.kind in ("baseline", "map"):  # both lengths, inside the window too
            assert np.isfinite([*each.recall, *each.unseen]).all()
            assert each.objective == pytest.approx(each.recall[1] + each.unseen[1])
    assert any("perplexity alone would have chosen" in reason for reason in report.reasons)


def test_weights_change_the_choice_and_need_no_new_reading(model, document, tmp_path):
    path = tmp_path / "r.json"
    both = run(model, document, path)
    unseen = run(model, document, path, resume=True, weights=(0, 1))
    assert both.losses.items() <= unseen.losses.items()
    assert json.loads(path.read_text())["weights"] == [0, 1]
    for each in unseen.candidates:
        if each.kind == "map":
            assert each.objective == pytest.approx(each.unseen[1], nan_ok=True)
    with pytest.raises(UsageError, match="--weights is 0,0"):
        run(model, document, tmp_path / "other.json", weights=(0, 0))


def test_several_lengths_share_one_reading(model, document, tmp_path):
    counts = []
    text = dataclasses.replace(document, text=document.text * 2)
    report = run(model, text, tmp_path / "r.json", max_length=3 * WINDOW,
                 on_progress=as_progress(counts.append))
    assert report.task.lengths == (INSIDE, 384, 512, 768)
    assert [point.length for point in report.points] == [384, 512, 768]
    asked = sum(EXCERPTS) * (SIZE + 3) * len(report.losses)
    # the fitted text once, the other under each map that is in the table, plain RoPE inside
    assert sum(counts) <= asked + 768 * len(report.held_out) + 1


def test_a_second_run_reads_nothing_again(model, document, tmp_path):
    path = tmp_path / "r.json"
    first = run(model, document, path)
    counted = []
    second = run(model, document, path, resume=True, on_progress=as_progress(counted.append))
    assert not counted
    assert (second.config, second.points, second.seconds, second.reasons) == (
        first.config, first.points, first.seconds, first.reasons)
    with pytest.raises(UsageError, match="--resume"):
        run(model, document, path)


def test_going_on_keeps_the_lengths(model, document, tmp_path):
    path = tmp_path / "r.json"

    def with_budget(budget, **options):
        return calibrate(
            model, [document], report=path, budget=budget, threads=1, **options)

    first = run(model, document, path, max_length=330)
    assert first.task.lengths[-1] == 330
    again = with_budget(1000.0, resume=True)
    assert again.task == first.task and again.losses.keys() == first.losses.keys()


def test_a_preset_for_short_inputs_has_its_rival(tiny, document, tmp_path):
    # Jet-Long takes none of LaMPE's rules for short inputs
    config = tiny_config(window=WINDOW, context_length=4 * WINDOW, short_length=70,
                         short_mapping_length=30)
    path = tiny("short.gguf", window=WINDOW, lampe=config)
    start = calibration_job.choose_config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration_job, "choose_config", lambda info: config)
        report = run(path, document, tmp_path / "r.json")
    assert start is calibration_job.choose_config
    assert report.held_out[0].kind == "baseline"
    rivals = [each for each in report.candidates if each.kind == "rival"]
    assert [each.parameters["short_length"] for each in rivals] == [0, 0]


def test_a_long_name_of_a_text_is_cut_to_what_metadata_holds(model, document, tmp_path):
    report = run(model, dataclasses.replace(document, name="книга " * 60), tmp_path / "r.json")
    assert report.config.validate() and "книга" in report.config.provenance


def test_an_interruption_keeps_what_was_asked(model, document, tmp_path):
    path = tmp_path / "r.json"
    counts = []

    def stop(count):
        counts.append(count)
        if sum(counts) > LONGEST + 4.5 * sum(EXCERPTS) * (SIZE + 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, document, path, on_progress=as_progress(stop))
    kept = json.loads(path.read_text())["losses"]
    assert len(kept) == 4
    whole = run(model, document, path, resume=True)
    fresh = run(model, document, tmp_path / "fresh.json")
    assert whole.config == fresh.config
    for name, losses in fresh.losses.items():
        for part in ("old", "fresh"):
            np.testing.assert_allclose(whole.losses[name][part], losses[part], rtol=2e-5)


def test_a_budget_for_nothing_is_refused(model, document, tmp_path):
    with pytest.raises(UsageError, match="--budget"):
        run(model, document, tmp_path / "r.json", budget=1e-9)


class SlowMachine:
    """A clock that goes on by what is read: the budget holds what the machine cannot change."""

    def __init__(self, tokens_per_second):
        self.seconds = 0.0
        self.per_token = 1 / tokens_per_second

    def monotonic(self):
        self.seconds += 1e-6  # measured durations are divided by
        return self.seconds

    def read(self, count):
        self.seconds += count * self.per_token


@pytest.mark.parametrize("budget", [12.0, 25.0, 8.0])
def test_a_tight_budget_is_kept_and_said(model, document, tmp_path, monkeypatch, budget):
    machine = SlowMachine(tokens_per_second=1000)
    for module in (calibration_clock, calibration_job, calibration_run, evaluate_reading):
        monkeypatch.setattr(module, "time", machine)
    report = run(model, document, tmp_path / "r.json", budget=budget,
                 on_progress=as_progress(machine.read))
    assert report.complete and machine.seconds < budget
    assert any("out of time" in reason for reason in report.reasons) == (budget < 25)
    assert budget == 25 or machine.seconds > budget - 2  # it is used, too


def test_held_out_text_decides(model, document, tmp_path):
    report = run(model, document, tmp_path / "r.json")
    kinds = [each.kind for each in report.held_out]
    assert kinds[0] == "baseline" and {"calibrated", "rival", "plain"} <= {*kinds}
    baseline, *others = report.held_out
    assert baseline.difference == 0
    kept = "none better found on" in report.config.provenance
    sure = any(each.difference < -2 * each.error for each in others if each.kind == "calibrated")
    assert kept or (sure and report.config.provenance.startswith("calibrated on"))


def program(*arguments):
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True)


def test_command_writes_what_it_found(model, document, tmp_path):
    text, out, picture = tmp_path / "t.txt", tmp_path / "out.gguf", tmp_path / "p.png"
    text.write_text(document.text)
    done = program(model, "--text", text, "--max-length", LONGEST, "--write", out, "--plot",
                   picture, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "asked from one reading" in done.stdout and "held out, each read" in done.stdout
    assert f"lengths {INSIDE}, {LONGEST} tokens, 12 excerpts and 6 fresh ones" in done.stderr
    saved = json.loads(Path(f"{model}.calibration.json").read_text())
    with GGUFFile(out) as file:
        assert dataclasses.asdict(read(file, "llama")) == saved["config"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = program(model, "--text", text, "--max-length", LONGEST)
    assert again.returncode == 2 and "--resume" in again.stderr
    refused = program(model, "--text", text, "--write", out, "--resume")
    assert refused.returncode == 2 and "--force" in refused.stderr


@pytest.mark.parametrize(("options", "code", "said"), [
    (["--max-length", 4096], 1, "give more text"),
    (["--weights", "1;1"], 2, "is no weights"),
    (["--weights", "0,0"], 2, "two numbers, of recall and of unseen loss"),
    (["--max-length", 100], 2, "window"),
    (["--budget", "soon"], 2, "is no time"),
    (["--budget", "0m"], 2, "is no time"),
])
def test_command_refuses_in_one_sentence(model, document, tmp_path, options, code, said):
    text = tmp_path / "t.txt"
    text.write_text(document.text)
    done = program(model, "--text", text, *options)
    assert done.returncode == code and said in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(f"{model}.calibration.json").exists()


def test_a_short_window_is_refused(tiny, document, tmp_path):
    with pytest.raises(LampeError, match="too short"):
        run(tiny(window=128, lampe=None), document, tmp_path / "r.json")
