"""The command line as a user meets it: output, exit codes, one sentence for each error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PROGRAM, call

from lampe_gguf.cli.main import COMMANDS


@pytest.fixture
def model(tiny: Callable[..., Path]) -> Path:
    return tiny("m.gguf")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("It was a dark and stormy night. " * 6, encoding="utf-8")
    return path


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["eval", "ppl"]])
def test_help_teaches(command: list[str]) -> None:
    done = call(*command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout and "lampe-gguf" in done.stdout
    assert "example" in done.stdout.lower() or not command


@pytest.mark.parametrize("group", [[], ["eval"]])
def test_a_group_alone_gives_its_help_as_it_is(group: list[str]) -> None:
    done = call(*group)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.rstrip() == call(*group, "--help").stdout.rstrip()


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, lampe_gguf.cli.main as c\n"
        "c.main(['--help'])\n"
        "print([m for m in ('numpy', 'gguf', 'llama_cpp', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments, code, words", [
    (["convert", "nosuch.gguf"], 1, "cannot open nosuch.gguf"),
    (["convert", "{m}", "{m}"], 2, "--force"),
    (["convert", "{m}", "--local-window", "0", "--force"], 2, "--local-window is 0; it must be"),
    (["convert", "{m}", "--tail-window", "30", "--force"], 2, "--tail-window is 30; it must be"),
    (["convert", "{m}", "--local-window", "31", "--force"], 2,
     "with what is given, tail_window would be 1; it must be 0 .*: change --tail-window too"),
    (["convert"], 2, "Missing argument"),
    (["nonsense"], 2, "No such command"),
    (["strip", "{m}", "{m}"], 2, "--force"),
    (["ask", "{m}", "why?", "--doc", "nosuch.txt"], 1, "cannot read nosuch.txt"),
    (["ask", "{m}", "why?", "--doc", "{m}"], 1, "not UTF-8 text"),
    (["ask", "{m}", "why?", "--n-ctx", "10"], 2, "--n-ctx 279"),
    (["ask", "{m}", "why?", "--doc", "-", "--doc", "-"], 2, "only once"),
    (["eval", "ppl", "{m}", "--text", "{b}", "--lengths", "5000"], 1, "beyond|5,000"),
    (["eval", "ppl", "{m}", "--text", "{b}", "--lengths", "99", "--methods", "selfextend",
      "--local-window", "32"], 2, "--local-window is 32; it must be an integer from 1 to 31"),
    (["eval", "kv", "{m}", "--lengths", "64", "--methods", "lampe", "--local-window", "99"], 2,
     "--local-window is 99"),
    (["eval", "ppl", "{m}", "--text", "{b}", "--lengths", "99", "--methods", "linear",
      "--factor", "nan"], 2, "'nan' is not a finite number"),
    (["eval", "ppl", "{m}", "--text", "{b}", "--lengths", "99", "--methods", "ntk",
      "--factor", "1e300"], 2, "1e.300 is not in the range"),
    (["eval", "kv", "{m}", "--factor", "inf"], 2, "not a finite number|not in the range"),
    (["eval", "niah", "{m}", "--depths", "0.5,nan"], 2, "'nan' is not a finite number"),
    (["attention", "{m}", "--text", "{b}", "--lengths", "64", "--depths", "NaN"], 2,
     "'NaN' is not a finite number"),
    *(([command, "{m}", option, value], 2, words) for command in ("ask", "chat")
      for option, value, words in (
        ("--temperature", "nan", "'nan' is not a finite number"),
        ("--temperature", "-nan", "'-nan' is not a finite number"),
        ("--temperature", "inf", "not a finite number|not in the range"),
        ("--temperature", "-1", "not in the range"),
        ("--max-tokens", "-1", "not in the range"),
        ("--max-tokens", "9" * 30, "not in the range"),
        ("--n-ctx", "-1", "not in the range"),
        ("--n-ctx", "5000000000", "not in the range"),
        ("--seed", "-1", "not in the range"),
        ("--seed", "4294967295", "not in the range"),
        ("--threads", "100000000000", "not in the range"),
    )),
    (["bench", "{m}", "--threads", "100000"], 2, "not in the range"),
    (["convert", "{m}", "--slope", "nan", "--force"], 2, "--slope is nan; it must be a finite"),
    (["convert", "{m}", "--attention-factor", "inf", "--force"], 2, "--attention-factor is inf"),
    (["calibrate", "{m}", "--budget", "9" * 400 + "h"], 2, "is no time"),
    (["eval", "ppl", "{m}", "--text", "{b}", "--lengths", "400"], 1, "193 tokens|192 tokens"),
    (["eval", "ppl", "{m}", "--text", "{b}", "--lengths", "9000000"], 1, "the text has 19[23] tok"),
    (["eval", "ppl", "{m}", "--text", "{b}", "--lengths", "99", "--factor", "4"], 2,
     "--factor is for linear, yarn, ntk only"),
    (["eval", "ppl", "{m}", "--text", "{b}", "--lengths", "99", "--plot", "nosuch/p.png"], 2,
     "no directory nosuch"),
    (["calibrate", "{m}", "--write", "nosuch/out.gguf"], 2, "no directory nosuch"),
    (["eval", "kv", "{m}", "--seed", "-1"], 2, "-1 is not in the range"),
    (["ask", "{b}", "why?"], 1, "is not a GGUF file"),
    (["ask", "nosuch.gguf", "why?"], 1, "cannot open nosuch.gguf"),
    (["convert", "."], 2, "a folder without config.json"),
])
def test_errors_are_one_sentence(
    model: Path, book: Path, arguments: list[str], code: int, words: str
) -> None:
    import re

    done = call(*(a.format(m=model, b=book) for a in arguments))
    assert done.returncode == code, done.stderr
    assert re.search(words, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_convert_inspect_strip(tiny: Callable[..., Path], tmp_path: Path) -> None:
    plain = tiny("plain.gguf", lampe=None)
    before = json.loads(call("inspect", plain, "--json").stdout)
    assert before["converted"] is False and before["config"]["window"] == 32
    done = call("convert", plain, "--json")
    assert done.returncode == 0
    output = json.loads(done.stdout)["outputs"][0]
    after = json.loads(call("inspect", output, "--json").stdout)
    assert after["converted"] is True and after["config"] == before["config"]
    assert [row["length"] for row in after["mapping"]] == [16, 32, 64, 128]
    assert [row["mapping_length"] for row in after["mapping"]] == [16, 32, 16, 16]
    picture = tmp_path / "map.png"
    text = call("inspect", output, "--plot", picture)
    assert "compression" in text.stdout and "4.00" in text.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert call("strip", output, tmp_path / "back.gguf").returncode == 0
    assert (tmp_path / "back.gguf").read_bytes() == plain.read_bytes()


def test_inspect_says_why_a_model_does_not_qualify(tiny: Callable[..., Path]) -> None:
    path = tiny("n.gguf", lampe=None, extra={"llama.attention.causal": False})
    assert "not causal" in call("inspect", path).stdout


def test_ask_streams_and_counts(model: Path, book: Path) -> None:
    done = call("ask", model, "Why?", "--doc", book, "--max-tokens", 8, "--temperature", 0,
                "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["path"] == "fused" and answer["compression"] > 5
    assert answer["prompt_tokens"] > 192
    piped = call("ask", model, "Why?", "--doc", "-", "--max-tokens", 8, "--temperature", 0,
                 stdin=book.read_text())
    assert piped.returncode == 0, piped.stderr
    plain = call("ask", model, "Why?", "--no-lampe", "--max-tokens", 4, "--json")
    assert json.loads(plain.stdout)["path"] == "off"


def test_ask_a_plain_model_uses_what_convert_would_write(
    tiny: Callable[..., Path], book: Path
) -> None:
    path = tiny("plain.gguf", lampe=None)
    done = call("ask", path, "Why?", "--max-tokens", 4, "--json")
    assert done.returncode == 0, done.stderr
    assert "carries no LaMPE metadata" in done.stderr
    assert json.loads(done.stdout)["path"] == "fused"
    too_long = call("ask", path, "Why?", "--doc", book)
    assert too_long.returncode == 1 and "this model supports 128" in too_long.stderr


def test_chat_from_a_pipe(model: Path, book: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    lines = (
        f"Hello\n/stats\n/doc {book}\nWhy?\n/doc nosuch\n/save {saved}\n/reset\n"
        f"/save {saved}\n/help\n/quit\n"
    )
    done = call("chat", model, "--max-tokens", 5, "--temperature", 0, stdin=lines)
    assert done.returncode == 0, done.stderr
    assert "of 512 tokens" in done.stdout and "forgotten" in done.stdout
    assert "cannot read nosuch" in done.stderr
    assert "talk.json exists already" in done.stderr  # and the first one is still there
    talk = json.loads(saved.read_text())["messages"]
    assert [m["role"] for m in talk] == ["user", "assistant"] * 2
    assert "stormy" in talk[2]["content"]


def test_a_chat_begins_with_what_to_know(model: Path, book: Path) -> None:
    begin = call("chat", model, "--doc", book, "--no-journal").stdout.partition("[")[0]
    assert begin == "1 document goes along with your first message\n/help lists the commands\n"
    other = book.with_name("other.txt")
    other.write_text("The sun was out.", encoding="utf-8")
    two = call("chat", model, "--doc", book, "--doc", other, "--no-journal", stdin="/drop doc\n")
    assert two.stdout.startswith("2 documents go along with") and "forgot 2 doc" in two.stdout
    without = call("chat")
    assert without.returncode == 2
    assert "Missing argument 'MODEL'. It may be left out with --resume last." in without.stderr


@pytest.mark.parametrize("method", [
    "lampe", "truncate", "rope", "linear", "yarn", "ntk", "selfextend", "jetlong", "rerope",
])
def test_eval_every_method(model: Path, book: Path, method: str, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    done = call("eval", "ppl", model, "--text", book, "--lengths", 150, "--methods", method,
                "--json", "--plot", picture)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["runs"]
    assert found["method"] == method and found["all"] > 1
    assert found["tokens"] == (32 if method == "truncate" else 150)
    assert found["path"] == "fused"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_doctor_is_content() -> None:
    done = call("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["ok"] and report["version"].startswith("0.3.36+lampe")
    assert "fused on CPU" in report["path"] and report["devices"]


def test_doctor_lists_the_architectures() -> None:
    text = call("doctor", "--architectures")
    assert text.returncode == 0
    rows = json.loads(call("doctor", "--architectures", "--json").stdout)
    assert len(rows) == len(text.stdout.splitlines()) > 100
    by_name = {row["name"]: row for row in rows}
    assert by_name["llama"]["qualifies"] and not by_name["llama"]["remark"]
    assert by_name["gemma3"]["qualifies"] and "window" in by_name["gemma3"]["remark"]
    assert not by_name["mamba"]["qualifies"] and "recurrent" in by_name["mamba"]["remark"]


def test_doctor_sees_the_stock_build(stock_path: str) -> None:
    import os

    env = {**os.environ, "PYTHONPATH": stock_path}
    done = subprocess.run([*PROGRAM, "doctor"], capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert "python3 tools/bootstrap.py setup" in done.stdout


def test_bytes_that_are_no_text_cost_themselves_alone(model: Path) -> None:
    options = ["--max-tokens", "2", "--n-ctx", "512"]
    said = subprocess.run(
        [*PROGRAM, "chat", str(model), *options], input=b"caf\xe9\n/stats\n", capture_output=True)
    assert said.returncode == 0 and b"Traceback" not in said.stderr, said.stderr
    assert b"context" in said.stdout
    asked = subprocess.run([*PROGRAM, "ask", str(model), b"caf\xe9?", *options],
                           capture_output=True)
    assert asked.returncode == 0 and b"Traceback" not in asked.stderr, asked.stderr


def test_a_picture_that_cannot_be_drawn_is_said_first(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lampe_gguf.cli import main as cli

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["inspect", str(model), "--plot", str(tmp_path / "p.png")]) == 2
    assert "plots need matplotlib" in capsys.readouterr().err
