"""What the tests of windows need is installed where that is allowed, and said where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from patched import screen
from patched.report import Failure

RAN: list[list[str]] = []


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system that has apt-get, and neither a screen nor xdotool; gives its cache."""
    RAN.clear()
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("apt-get", "dpkg"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("LAMPE_GGUF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(screen, "LIBRARIES", ())
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def run(command: list[str], label: str, **options: object) -> str:
        RAN.append([str(each) for each in command])
        if "--download-only" in command or "--install" in command:
            folder = next(iter((tmp_path / "cache" / "debian").iterdir()))
            (folder / "xvfb.deb").touch()
        if "--no-download" in command or "--install" in command:
            for name in (*screen.PROGRAMS, "chromium"):
                (programs / name).write_text("#!/bin/sh\n")
                (programs / name).chmod(0o755)
        return ""

    monkeypatch.setattr(screen, "run", run)
    return tmp_path / "cache"


def test_it_is_installed_once_and_then_from_the_cache(bare: Path) -> None:
    assert screen.missing() == [*screen.PROGRAMS, "chromium"]
    assert screen.prepare() == "" and screen.missing() == []
    assert [each for each in RAN if "xvfb" in each] and RAN[0][-1] == "update"
    RAN.clear()
    assert screen.prepare() == "" and RAN == []
    for name in (*screen.PROGRAMS, "chromium"):  # the machine is made anew, and its cache is not
        os.remove(os.path.join(os.environ["PATH"], name))
    assert screen.prepare() == ""
    (only,) = RAN
    assert only[:2] == ["dpkg", "--install"] and only[2].endswith("xvfb.deb")


def test_who_may_not_is_told_what_to_install(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = screen.prepare()
    assert "Xvfb, xdotool, chromium missing" in said and "apt-get install xvfb xdotool" in said
    assert not RAN


def test_no_network_stops_nothing(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], label: str, **options: object) -> str:
        raise Failure("there is no network")

    monkeypatch.setattr(screen, "run", run)
    assert screen.prepare() == "windows or the page are not tested: there is no network"
