"""`lampe-gguf attention` as a whole, on a tiny model."""

from __future__ import annotations

import json
import random
import re
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attention_oracle import weights
from conftest import tiny_config

from lampe_gguf.attention import passkey as attention_passkey
from lampe_gguf.attention.measure import METHODS, measure
from lampe_gguf.attention.plot import plot_attention
from lampe_gguf.attention.probe import Probe
from lampe_gguf.attention.reader import PrefixModel, Reader, Rows
from lampe_gguf.attention.stats import bin_edges, entropy, jensen_shannon, pattern
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.container.meter import Meter
from lampe_gguf.evaluate import perplexity as evaluate
from lampe_gguf.model.choose import file_config

PROGRAM = [sys.executable, "-m", "lampe_gguf.cli.main", "attention"]
WINDOW = 32
LETTERS = random.Random(0)
TEXT = "".join(LETTERS.choice(string.ascii_lowercase + "  ") for _ in range(900))


@pytest.mark.parametrize("policy, add_bos", [("causal", False), ("prompt", False),
                                             ("causal", True)])
def test_figures_are_those_of_the_whole_model(
    tiny: Callable[..., Path], policy: str, add_bos: bool
) -> None:
    config = tiny_config(length_policy=policy)
    path = tiny(lampe=config, add_bos=add_bos)
    lengths, n_queries = [20, 40, 90], 4
    report = measure(path, TEXT, lengths, n_queries=n_queries, threads=1)
    assert report.queries == [8, 6, 4, 1] or len(set(report.queries)) == n_queries
    assert report.distances == bin_edges(90).tolist()
    llm = LampeLlama(path, n_ctx=256)
    tokens = llm.tokenize(TEXT.encode())[:90]
    llm.close()
    seen = {}
    for reading in report.readings:
        first = max(0, reading.length - WINDOW) if reading.method == "trained" else 0
        read = tokens[first : reading.length]
        if add_bos:
            read[0] = tokens[0]  # what is cut begins as texts do
        assert reading.tokens == len(read)
        found = weights(path, read, config if reading.method == "lampe" else None,
                        len(read) if policy == "prompt" else None)
        rows = [found[:, at, :, : at + 1] for at in (len(read) - x for x in report.queries)]
        uncertainty = np.mean([entropy(row) for row in rows], axis=0)
        np.testing.assert_allclose(reading.entropy, uncertainty, atol=5e-3)
        assert reading.uncertainty == pytest.approx(uncertainty.mean(), abs=5e-3)
        masses = np.mean([pattern(row, bin_edges(90)) for row in rows], axis=0)
        seen[reading.method, reading.length] = masses
        np.testing.assert_allclose(reading.pattern, masses.mean(axis=(0, 1)), atol=2e-3)
        assert sum(reading.pattern) == pytest.approx(1, abs=1e-4)
        divergence = jensen_shannon(masses, seen["trained", reading.length])
        np.testing.assert_allclose(reading.divergence_by_layer, divergence.mean(axis=1), atol=2e-3)
        assert reading.divergence == pytest.approx(divergence.mean(), abs=2e-3)
    by_name = {(x.method, x.length): x for x in report.readings}
    assert len(by_name) == 9
    # inside the window, plain RoPE is what the trained length is; LaMPE compresses here (m = 20)
    assert by_name["rope", 20].entropy == by_name["trained", 20].entropy
    assert by_name["rope", 90].divergence > 0.01


@pytest.mark.parametrize("method", ["jetlong", "rerope", "selfextend", "linear", "yarn", "ntk"])
def test_any_method_can_be_looked_at(tiny: Callable[..., Path], method: str) -> None:
    path = tiny()
    report = measure(path, TEXT, [60, 90], methods=[method], n_queries=4, threads=1)
    assert [(x.method, x.length) for x in report.readings] == [
        ("trained", 60), (method, 60), ("trained", 90), (method, 90)]
    llm = LampeLlama(path, n_ctx=256)
    tokens = llm.tokenize(TEXT.encode())[:90]
    llm.close()
    plain = weights(path, tokens, None)
    rows = [plain[:, at, :, : at + 1] for at in (90 - x for x in report.queries)]
    apart = np.abs(np.mean([entropy(row) for row in rows], axis=0) - report.readings[3].entropy)
    assert apart.max() > 0.02  # of another map than plain RoPE's
    config = evaluate.setting(method, file_config(path)[1], 90).lampe
    if method in evaluate.METHODS[-3:]:  # whose map the oracle knows
        found = weights(path, tokens, config)
        rows = [found[:, at, :, : at + 1] for at in (90 - x for x in report.queries)]
        uncertainty = np.mean([entropy(row) for row in rows], axis=0)
        np.testing.assert_allclose(report.readings[3].entropy, uncertainty, atol=5e-3)


@pytest.mark.parametrize("policy", ["causal", "prompt"])
def test_a_shared_beginning_is_not_read_again(tiny: Callable[..., Path], policy: str) -> None:
    path = tiny(lampe=tiny_config(length_policy=policy))
    tokens = [int(x) for x in np.random.default_rng(1).integers(259, 380, 100)]
    counts: list[int] = []
    work = Meter(1000, lambda done, total: counts.append(done))
    llm = PrefixModel(path, n_ctx=128, n_threads=1, n_threads_batch=1)
    with Reader(llm, Rows(bin_edges(128)), work) as reader:
        reader.read(tokens[:60], [50])
        other = [*tokens[:45], *tokens[60:]]  # another from position 45 on
        reader.read(other, [80])
        again = reader.rows.mean_entropy()
    assert counts[-1] == 60 + (85 - 45 if policy == "causal" else 85)
    with Reader(PrefixModel(path, n_ctx=128, n_threads=1, n_threads_batch=1),
                Rows(bin_edges(128)), Meter(0)) as reader:
        reader.read(other, [80])
        np.testing.assert_allclose(again, reader.rows.mean_entropy(), atol=1e-3)


def test_passkey_prompts_fit_and_answers_are_judged(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny()
    wrong = False

    def logits(probe: Probe) -> np.ndarray:
        # what a model that finds the key would say: token by token, one for each character
        trial = plan[len(said) // 5]
        digit = str((int(trial[len(said) % 5]) + wrong) % 10)
        said.append(digit)
        out = np.zeros(384)
        out[llm.tokenize(digit.encode(), add_bos=False)[-1]] = 1
        return out

    llm = PrefixModel(path, n_ctx=448, n_threads=1, n_threads_batch=1)
    with Reader(llm, Rows(bin_edges(448)), Meter(0)) as reader:
        draw = random.Random("7 420")
        keys = {depth: str(draw.randrange(10000, 100000)) for depth in (0.2, 0.9)}
        plan = [keys[0.9], keys[0.2]] * 2
        said: list[str] = []
        monkeypatch.setattr(Probe, "logits", logits)
        hits = attention_passkey.run_trials(reader, "lampe", TEXT, [420], [0.2, 0.9], seed=7)
        wrong = True
        misses = attention_passkey.run_trials(reader, "lampe", TEXT, [420], [0.2, 0.9], seed=7)
    assert [trial.hit for trial in hits + misses] == [True, True, False, False]
    assert [trial.key for trial in hits] == [keys[0.9], keys[0.2]]
    for trial, miss in zip(hits, misses, strict=True):
        assert 420 - 2 * attention_passkey.SLACK <= trial.tokens <= 420
        assert trial.entropy == pytest.approx(np.mean(trial.entropy_by_layer))
        assert trial.entropy == pytest.approx(miss.entropy, abs=1e-3)  # the same query


def test_the_key_is_where_it_was_asked_for(tiny: Callable[..., Path]) -> None:
    llm = LampeLlama(tiny(), n_ctx=512)
    for depth in (0.0, 0.25, 1.0):
        tokens = attention_passkey.prompt(llm, TEXT[:300], depth, "31415")
        text = llm.detokenize(tokens).decode()
        before = text.split("\n\nThe pass key is number 31415")[0]
        length = len(before) - before.index("Remember it.\n\n") - len("Remember it.\n\n")
        assert abs(length - depth * 300) < 20
        assert text.endswith(attention_passkey.ANSWER)
    llm.close()


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments), "--threads", "1"], capture_output=True, text=True,
        timeout=120,
    )


def test_the_command(tiny: Callable[..., Path], book: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    done = call(tiny(), "--text", book, "--lengths", "300,400", "--passkey", "--depths", "0.5",
                "--queries", "4", "--plot", picture)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(re.findall(r"^ +[34]00  (?:trained|rope|lampe) ", done.stdout, re.M)) == 6 + 4
    assert len(re.findall("miss  [0-9]{5}", done.stdout)) == 4


def test_a_picture_of_every_method(tiny: Callable[..., Path], tmp_path: Path) -> None:
    picture = tmp_path / "all.png"
    report = measure(tiny(), TEXT, [64], methods=METHODS, n_queries=2, threads=1)
    plot_attention(report, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_command_as_json(tiny: Callable[..., Path], book: Path) -> None:
    done = call(tiny("plain.gguf", lampe=None), "--text", book, "--lengths", "64",
                "--trained-length", "20", "--queries", "4", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["trained_length"] == 20 and report["trials"] == []
    assert [(x["method"], x["tokens"]) for x in report["readings"]] == [
        ("trained", 20), ("rope", 64), ("lampe", 64)]
    assert np.shape(report["readings"][0]["entropy"]) == (2, 4)


@pytest.mark.parametrize("arguments, code, words", [
    (["{m}", "--text", "{b}", "--lengths", "64,many"], 2, "'many' is not a valid integer"),
    (["{m}", "--text", "{b}", "--lengths", "1"], 2, "1 is not in the range x>=2"),
    (["{m}", "--text", "{b}", "--lengths", "64", "--trained-length", "33"], 2, "2 to 32 tokens"),
    (["{m}", "--text", "{b}", "--lengths", "20"], 2, "room for 1 to 10"),
    (["{m}", "--text", "{b}", "--lengths", "2000"], 1, "900 tokens and --lengths asks for 2,000"),
    (["{m}", "--text", "{b}", "--lengths", "64", "--passkey"], 1, "give at least"),
    (["{m}", "--text", "nosuch.txt", "--lengths", "64"], 1, "cannot read nosuch.txt"),
    (["nosuch.gguf", "--text", "{b}", "--lengths", "64"], 1, "nosuch.gguf"),
])
def test_errors_are_one_sentence(
    tiny: Callable[..., Path], book: Path, arguments: list[str], code: int, words: str
) -> None:
    model = tiny()
    done = call(*(a.format(m=model, b=book) for a in arguments))
    assert done.returncode == code, done.stderr
    assert words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
