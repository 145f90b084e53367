"""The tools' command lines: each starts, and a wrong number is said before anything runs."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from arguments import COUNT, run, tool
from patched.arguments import count

from lampe_gguf.errors import LampeError

CHECKOUT = Path(__file__).resolve().parents[2]
TOOLS = CHECKOUT / "tools"
PROGRAMS = sorted(path.relative_to(CHECKOUT).as_posix() for path in TOOLS.rglob("*.py")
                  if "__main__" in path.read_text(encoding="utf-8")
                  and not path.stem.endswith("_side"))
# run by any python3, before anything is installed
EARLY = [name for name in PROGRAMS if "import argparse" in (CHECKOUT / name).read_text("utf-8")]


def start(name: str, *arguments: str, before: tuple[str, ...] = ()
          ) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *before, name, *arguments], cwd=CHECKOUT,
                          capture_output=True, text=True)


def test_there_are_tools() -> None:
    assert {"tools/bootstrap.py", "tools/backend.py", "tools/demo.py", "tools/make_fields.py",
            "tools/fuzz.py", "tools/measure/study.py", "tools/device/cross.py"} <= {*PROGRAMS}
    assert len(PROGRAMS) >= 18


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_tool_starts(name: str) -> None:
    done = start(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.lower().startswith("usage: ") and done.stderr == ""
    assert f"tools/{Path(name).name}" not in done.stdout or name.count("/") == 1
    wrong = start(name, "--nonsense")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert (wrong.stderr.count("\n") == 1) or name in EARLY


@pytest.mark.parametrize("name", EARLY)
def test_what_comes_before_the_installation_needs_none(name: str) -> None:
    # -S: no package of any environment is found; -I: nor by PYTHONPATH
    done = start(name, "--help", before=("-I", "-S"))
    assert done.returncode == 0, done.stderr


def test_one_argument_library() -> None:
    early = {"tools/bootstrap.py", "tools/backend.py", "tools/device/cross.py",
             "tools/device/elsewhere.py", "tools/device/on_device.py",
             "tools/device/processors.py", "tools/device/sanitize.py",
             "tools/device/server_clients.py", "tools/device/server_tests.py",
             "tools/device/upstream_tests.py"}
    assert {*EARLY} == early
    for name in {*PROGRAMS} - early:
        assert re.search(r"\n@tool\(__doc__\)\n", (CHECKOUT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", ["0", "-5", "1.5", "many", ""])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
        count(text)
    with pytest.raises(click.BadParameter, match="at least 1"):
        COUNT(text)


def test_a_count() -> None:
    assert count("512") == COUNT("512") == 512


@pytest.mark.parametrize("name, option", [
    *(("measure/bench_attention", each) for each in (
        "--length", "--queries", "--threads", "--repeats")),
    ("measure/bench_convert", "--rounds"),
    ("measure/compare_attention", "--length"),
    ("measure/compare_hf", "--tail"),
    ("measure/profile_device", "--queries"),
    ("measure/profile_writing", "--tokens"),
    ("device/on_device_speed", "--length"),
    ("fuzz", "--minutes"),
])
def test_a_measurement_of_nothing(name: str, option: str) -> None:
    done = start(f"tools/{name}.py", option, "0")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: Invalid value for '{option}': '0' is not a whole number of at least 1\n")


@pytest.mark.parametrize("option, value, said", [
    ("--windows", "2,0", "not in the range"), ("--seeds", "0", "at least 1"),
    ("--methods", "lampe,magic", "no method 'magic'"), ("--methods", "rope", "name it"),
    ("--what", "magic", "not one of"), ("--read-with", "yarn", "serves no other"),
])
def test_a_study_of_nothing(option: str, value: str, said: str, tmp_path: Path) -> None:
    done = start("tools/measure/study.py", "--show", "--reports", str(tmp_path), option, value)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_on_device_counts_too() -> None:
    done = start("tools/device/on_device.py", "--vulkan", "--tokens", "0")
    assert done.returncode == 2 and "argument --tokens: '0' is not a whole" in done.stderr


@pytest.mark.parametrize("error, code, said", [
    (LampeError("no such thing"), 1, "error: no such thing\n"),
    (KeyboardInterrupt(), 130, "\nstopped\n"),  # after a ^C that the terminal shows
    (click.UsageError("not so"), 2, "error: not so\n"),
    (None, 3, ""),
])
def test_how_a_tool_ends(
    error: BaseException | None, code: int, said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    @tool("A tool.")
    def main() -> int:
        if error is not None:
            raise error
        return 3

    monkeypatch.setattr(sys, "argv", [os.fspath(TOOLS / "tool.py")])
    with pytest.raises(SystemExit) as left:
        run(main)
    assert (left.value.code, capsys.readouterr().err) == (code, said)
