"""serve begins with what was read before, and keeps what it has read."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, tiny_config
from reading_models import gemma
from serving_side import Client, require_server, same
from tiny_model import make_tiny_model

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.model.choose import read_file
from lampe_gguf.readings import limit
from lampe_gguf.readings.keeping import Readings
from lampe_gguf.readings.key import key_of
from lampe_gguf.serving.arguments import Wishes
from lampe_gguf.serving.serve import Plan, plan, start
from lampe_gguf.serving.slots import kept_slots, server_key

TEXT = "Ships came in with the tide, and the harbour was full of them. " * 6


@pytest.fixture
def model(tmp_path: Path) -> Path:
    require_server()
    return make_tiny_model(
        tmp_path / "m.gguf", window=32, lampe=tiny_config(context_length=1024))


@pytest.fixture
def kept(tmp_path: Path) -> Readings:
    return Readings(tmp_path / "kept", 10**9, least=16)


def planned_for(model: Path, slots: int, *extra: str, ctx: int = 512, **wishes: Any) -> Plan:
    return plan(model, Wishes(port=0, threads=1, slots=slots, ctx=ctx, extra=extra, **wishes))


@pytest.mark.parametrize("n_slots", [1, 2])
def test_what_a_server_has_read_outlives_it(model: Path, kept: Readings, n_slots: int) -> None:
    file = read_file(model)
    wanted = planned_for(model, n_slots)
    with kept_slots(file, wanted, kept) as (slots, planned):
        assert slots is not None
        with start(model, planned) as server:
            server.wait_ready()
            client = Client(planned.url, server.pid)
            assert slots.restore() == [] == slots.keep()
            fresh = client.complete(TEXT + "And then?", id_slot=n_slots - 1)
            [entry] = slots.keep()
            assert slots.keep() == []  # there is no more of it
    assert [each.id for each in kept.entries()] == [entry.id]
    assert sorted(path.suffix for path in kept.store.folder.iterdir()) == [".json", ".state"]
    # a model in this process takes it as its own
    with LampeLlama(model, n_ctx=768) as llm:
        assert entry.key == key_of(llm)
        tokens = llm.tokenize((TEXT + "And then?").encode(), False, True)
        assert kept.load(llm, tokens) >= len(tokens) - 1
    with kept_slots(file, wanted, kept) as (slots, planned):
        assert slots is not None
        with start(model, planned) as server:
            server.wait_ready()
            client = Client(planned.url, server.pid)
            assert [each.id for each in slots.restore()] == [entry.id]
            again = client.complete(TEXT + "And then?")
            assert again["timings"]["prompt_n"] < 16
            same(fresh, again)


@pytest.mark.parametrize("n_slots", [1, 2])
def test_a_server_begins_with_what_was_read_here(
    model: Path, kept: Readings, n_slots: int
) -> None:
    with LampeLlama(model, n_ctx=512) as llm:
        llm.eval(llm.tokenize(TEXT.encode(), False, True))
        assert kept.keep(llm) is not None
    with kept_slots(read_file(model), planned_for(model, n_slots), kept) as (slots, planned):
        assert slots is not None
        with start(model, planned) as server:
            server.wait_ready()
            assert len(slots.restore()) == 1
            said = Client(planned.url, server.pid).complete(TEXT + "And then?")
            assert said["timings"]["cache_n"] >= len(TEXT) - 1 > 300


def test_a_damaged_reading_is_given_to_no_server(model: Path, kept: Readings) -> None:
    with LampeLlama(model, n_ctx=512) as llm:
        llm.eval(llm.tokenize(TEXT.encode(), False, True))
        entry = kept.keep(llm)
        assert entry is not None
    with open(kept.store.path(entry), "r+b") as file:
        file.seek(-9, 2)
        file.write(b"?")
    with kept_slots(read_file(model), planned_for(model, 2), kept) as (slots, planned):
        assert slots is not None
        with start(model, planned) as server:
            server.wait_ready()
            assert slots.restore() == []


def test_the_key_of_a_server_is_that_of_a_model(model: Path, tmp_path: Path) -> None:
    file = read_file(model)
    cases: list[tuple[dict[str, Any], tuple[str, ...], bool]] = [
        ({}, (), True), ({"lampe": False}, (), False),
        ({"type_k": 8, "type_v": 8}, ("--cache-type-k", "q8_0", "-ctv", "q8_0"), True),
    ]
    for options, extra, use_lampe in cases:
        planned = planned_for(model, 1, *extra, use_lampe=use_lampe, ctx=32)
        with LampeLlama(model, n_ctx=512, **options) as llm:
            assert server_key(file, planned) == key_of(llm)


def test_the_command_keeps_at_ctrl_c_and_restores(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limit.FOLDER, str(tmp_path / "cache"))
    monkeypatch.delenv(limit.MOST)

    def serve(*options: str) -> tuple[list[str], str, Any]:
        process = subprocess.Popen(
            [*PROGRAM, "serve", str(model), "--port", "0", "--threads", "1", "--ctx", "1024",
             *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        said: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C ends it" in line:
                break
        else:
            raise AssertionError(process.communicate())
        [url] = [line.split()[1] for line in said if line.startswith("browser")]
        answer = Client(url, 0).complete(TEXT, 1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return said, errors, answer["timings"]

    said, errors, timings = serve("--no-readings")
    assert "kept" not in errors and not (tmp_path / "cache").exists()
    # 377 tokens are worth an entry
    said, errors, timings = serve()
    assert errors.endswith("stopped; kept 1 reading\n") and timings["prompt_n"] > 300
    assert not any(line.startswith("kept") for line in said)
    said, errors, timings = serve()
    assert errors.endswith("stopped\n") and timings["prompt_n"] < 16
    assert any("tokens need not be read again" in line for line in said)
    assert len(list((tmp_path / "cache" / "readings").iterdir())) == 2


def test_where_it_cannot_be_known_nothing_is_kept(
    model: Path, kept: Readings, tmp_path: Path
) -> None:
    file = read_file(model)
    for extra in (("--cache-reuse", "16"), ("--rope-freq-base", "5000"), ("--cache-type-k", "x"),
                  ("--slot-save-path", str(tmp_path))):
        planned = dataclasses.replace(planned_for(model, 2), wishes=Wishes(extra=extra))
        assert server_key(file, planned) is None
        with kept_slots(file, planned, kept) as (slots, same_plan):
            assert slots is None and same_plan is planned
    planned = planned_for(model, 2)
    with kept_slots(file, planned, None) as (slots, _):
        assert slots is None
    path = gemma(lambda name, **options: make_tiny_model(tmp_path / name, **options),
                 lampe=tiny_config(), window=32)
    assert server_key(read_file(path), planned) is None  # two caches, in another order
    one = planned_for(path, 1)
    assert server_key(read_file(path), one) is not None
