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
from lampe_gguf.calibration import job as calibration_job
from lampe_gguf.calibration import run as calibration_run
from lampe_gguf.calibration.job import calibrate
from lampe_gguf.calibration.reading import Reader
from lampe_gguf.container.reader import GGUFFile
from lampe_gguf.conversation.documents import Document
from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.evaluate.perplexity import score
from lampe_gguf.method.config import LampeConfig
from lampe_gguf.model.metadata import read

PROGRAM = [sys.executable, "-m", "lampe_gguf.cli.main", "calibrate"]
WINDOW = 128
LONGEST = 256


@pytest.fixture
def model(tiny):
    return tiny(window=WINDOW, lampe=None)


@pytest.fixture
def document():
    letters = random.Random(0)
    text = "".join(letters.choice(string.ascii_lowercase + "  ") for _ in range(3 * LONGEST))
    return Document("letters", text)


def run(model, document, path, **options):
    return calibrate(model, [document], report=path, budget=options.pop("budget", None),
                     max_length=LONGEST, threads=1, **options)


def as_progress(took):
    """on_progress for what is called with the tokens just read."""
    before = 0

    def tell(done, total):
        nonlocal before
        assert before <= done <= total
        took(done - before)
        before = done

    return tell


@pytest.mark.parametrize("add_bos", [False, True])
def test_losses_are_those_of_a_fresh_reading(tiny, document, tmp_path, add_bos):
    model = tiny(window=WINDOW, lampe=None, add_bos=add_bos)
    report = run(model, document, tmp_path / "r.json")
    assert report.complete and report.config is not None
    assert len(report.readings) >= 12
    lengths, tail = report.task.lengths, report.task.tail
    assert lengths == (64, 128, 160, 192, 256)
    n_checked = 0
    for name, losses in report.readings.items():
        segment, _, values = name.partition(" ")
        config = LampeConfig(**json.loads(values), context_length=4 * WINDOW)
        if config.length_policy != "causal":
            continue
        llm = LampeLlama(model, lampe=config, n_ctx=LONGEST, n_threads=1, n_threads_batch=1)
        tokens = llm.tokenize(document.text.encode())
        if segment == "fitted":
            tokens = tokens[:LONGEST]
        elif add_bos:  # every text of such a model begins with it
            tokens = [llm.token_bos(), *tokens[LONGEST + 1 : 2 * LONGEST]]
        else:
            tokens = tokens[LONGEST : 2 * LONGEST]
        nll = score(llm, tokens)
        llm.close()
        want = [nll[stop - tail - 1 : stop - 1].mean() for stop in lengths]
        np.testing.assert_allclose(np.mean(losses, axis=1), want, rtol=2e-5)
        n_checked += 1
    assert n_checked >= 12


def test_readers_of_two_texts_may_take_turns(model, document):
    config = tiny_config(window=WINDOW, context_length=4 * WINDOW)
    llm = LampeLlama(model, lampe=config, n_ctx=LONGEST, n_threads=1, n_threads_batch=1)
    tokens = llm.tokenize(document.text.encode())
    readers = [Reader(llm, tokens[i : i + LONGEST], [128, LONGEST], 32) for i in (0, LONGEST)]
    first = [reader.losses_of(config, lambda count: None) for reader in readers]
    other = dataclasses.replace(config, local_window=10)
    for reader in readers:
        reader.losses_of(other, lambda count: None)
    again = [reader.losses_of(config, lambda count: None) for reader in readers]
    llm.close()
    np.testing.assert_allclose(again, first, rtol=2e-5)


def test_prompt_policy_is_read_as_one_prompt(model, document, tmp_path):
    report = run(model, document, tmp_path / "r.json")
    found = [x for x in report.readings if '"length_policy": "prompt"' in x]
    assert len(found) >= 1
    losses = np.array(report.readings[found[0]])
    assert np.isnan(losses[:-1]).all()
    config = LampeConfig(**json.loads(found[0].partition(" ")[2]), context_length=4 * WINDOW)
    llm = LampeLlama(model, lampe=config, n_ctx=LONGEST, n_threads=1, n_threads_batch=1)
    tokens = llm.tokenize(document.text.encode())[:LONGEST]
    nll = score(llm, tokens)
    llm.close()
    # one token fewer is announced there: the last is only predicted
    assert losses[-1].mean() == pytest.approx(nll[-report.task.tail :].mean(), rel=2e-3)


def test_a_second_run_reads_nothing_again(model, document, tmp_path):
    path = tmp_path / "r.json"
    first = run(model, document, path)
    counted = []
    second = run(model, document, path, resume=True, on_progress=as_progress(counted.append))
    assert not counted
    assert (second.config, second.points, second.seconds) == (
        first.config, first.points, first.seconds)
    with pytest.raises(UsageError, match="--resume"):
        run(model, document, path)


def test_going_on_keeps_the_ladder(model, document, tmp_path):
    path = tmp_path / "r.json"

    def with_budget(budget, **options):
        return calibrate(
            model, [document], report=path, budget=budget, threads=1, **options)

    document = dataclasses.replace(document, text=document.text * 2)
    first = calibrate(
        model, [document], report=path, budget=None, max_length=192, threads=1)
    assert first.task.lengths[-1] == 192
    again = with_budget(1000.0, resume=True)
    assert again.task == first.task and again.readings.keys() == first.readings.keys()


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
    assert [each.name for each in report.held_out] == ["baseline", "calibrated", "jetlong"]


def test_a_long_name_of_a_text_is_cut_to_what_metadata_holds(model, document, tmp_path):
    report = run(model, dataclasses.replace(document, name="книга " * 60), tmp_path / "r.json")
    assert report.config.validate() and "книга" in report.config.provenance


def test_an_interruption_keeps_what_was_read(model, document, tmp_path):
    path = tmp_path / "r.json"
    counts = []

    def stop(count):
        counts.append(count)
        if sum(counts) > 5 * LONGEST:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, document, path, on_progress=as_progress(stop))
    kept = json.loads(path.read_text())["readings"]
    assert 3 <= len(kept) <= 5
    whole = run(model, document, path, resume=True)
    fresh = run(model, document, tmp_path / "fresh.json")
    assert whole.config == fresh.config
    for name, losses in fresh.readings.items():
        np.testing.assert_allclose(whole.readings[name], losses, rtol=2e-5, equal_nan=True)


def test_a_budget_for_nothing_is_refused(model, document, tmp_path):
    with pytest.raises(UsageError, match="--budget"):
        run(model, document, tmp_path / "r.json", budget=1e-9)


class SlowMachine:
    """A clock that goes on by what is read: the budget holds what the machine cannot change."""

    def __init__(self, seconds_reading):
        self.seconds = 0.0
        self.per_token = seconds_reading / LONGEST

    def monotonic(self):
        self.seconds += 1e-6  # measured durations are divided by
        return self.seconds

    def read(self, count):
        self.seconds += count * self.per_token


def test_a_tight_budget_is_kept_and_said(model, document, tmp_path, monkeypatch):
    machine = SlowMachine(seconds_reading=0.4)
    for module in (calibration_job, calibration_run):
        monkeypatch.setattr(module, "time", machine)
    report = run(model, document, tmp_path / "r.json", budget=3.0,
                 on_progress=as_progress(machine.read))
    # seven readings fit, of which two are the held-out text's and one, for a comparison, fits last
    assert report.complete and len(report.readings) == 7
    assert 2.7 < machine.seconds < 3.0
    assert any("out of time" in reason for reason in report.reasons)


def test_held_out_text_decides(model, document, tmp_path):
    report = run(model, document, tmp_path / "r.json")
    names = [each.name for each in report.held_out]
    assert names == ["baseline", "calibrated", "jetlong"]
    baseline, calibrated = report.held_out[:2]
    assert baseline.difference == 0
    kept = "none better found on" in report.config.provenance
    sure = calibrated.difference < -2 * calibrated.error
    assert kept != sure
    assert kept or report.config.provenance.startswith("calibrated on")


def program(*arguments):
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True)


def test_command_writes_what_it_found(model, document, tmp_path):
    text, out, picture = tmp_path / "t.txt", tmp_path / "out.gguf", tmp_path / "p.png"
    text.write_text(document.text)
    done = program(model, "--text", text, "--max-length", LONGEST, "--write", out, "--plot",
                   picture, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "best m" in done.stdout and "held out" in done.stdout
    assert "lengths 64, 128, 160, 192, 256 tokens" in done.stderr
    saved = json.loads(Path(f"{model}.calibration.json").read_text())
    with GGUFFile(out) as file:
        assert read(file, "llama") == LampeConfig(**saved["config"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = program(model, "--text", text, "--max-length", LONGEST)
    assert again.returncode == 2 and "--resume" in again.stderr
    refused = program(model, "--text", text, "--write", out, "--resume")
    assert refused.returncode == 2 and "--force" in refused.stderr


@pytest.mark.parametrize(("options", "code", "said"), [
    (["--max-length", 4096], 1, "give more text"),
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
        run(tiny(window=32, lampe=None), document, tmp_path / "r.json")
