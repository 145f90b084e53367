"""What is decided before a server is started: who gets in, how positions map, what fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import tiny_config

from lampe_gguf.backend import api, programs
from lampe_gguf.cli.serve import memory_line
from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.model import metadata
from lampe_gguf.model.choose import read_file
from lampe_gguf.serving import arguments as args
from lampe_gguf.serving import log, memory
from lampe_gguf.serving.free import free_memory
from lampe_gguf.serving.memory import MIB, Fitted, Need

GIB = 1 << 30


@pytest.mark.parametrize("host, alone", [
    ("127.0.0.1", True), ("127.3.2.1", True), ("localhost", True), ("::1", True), ("[::1]", True),
    ("/run/x.sock", True), ("0.0.0.0", False), ("::", False), ("192.168.1.4", False),
    ("example.org", False), ("", False), ("127.0.0.1.example.org", False),
])
def test_whoever_lets_others_in_needs_a_key(host: str, alone: bool) -> None:
    assert args.is_loopback(host) == alone
    args.Wishes(host=host, api_key="k").check()
    if alone:
        args.Wishes(host=host).check()
    else:
        with pytest.raises(UsageError, match="LLAMA_API_KEY"):
            args.Wishes(host=host).check()


def test_a_plain_file_gets_what_convert_would_write(tiny: Callable[..., Path]) -> None:
    file = read_file(tiny(lampe=None))
    mapped = args.mapping(file, use_lampe=True)
    assert mapped.overrides == metadata.as_overrides("llama", file.config)
    assert mapped.limit == file.config.context_length == 128
    assert len(mapped.notes) == 1 and "carries no LaMPE metadata" in mapped.notes[0]
    flag, said = args.override(mapped.overrides)
    assert flag == "--override-kv"
    parts = said.split(",")
    assert "llama.rope.scaling.lampe.window=int:32" in parts
    assert "llama.rope.scaling.lampe.method=str:lampe" in parts
    assert "llama.rope.scaling.lampe.offset=float:40.0" in parts
    assert len(parts) == len(mapped.overrides)
    assert args.mapping(file, use_lampe=False) == args.Mapping({}, 32, [])


def test_a_converted_file_has_its_own(tiny: Callable[..., Path]) -> None:
    file = read_file(tiny())
    assert args.mapping(file, use_lampe=True) == args.Mapping({}, 512, [])
    off = args.mapping(file, use_lampe=False)
    assert off == args.Mapping({"llama.rope.scaling.lampe.version": 0}, 32, [])
    assert args.override({}) == []


def test_the_policy_prompt_is_served_as_causal(tiny: Callable[..., Path]) -> None:
    file = read_file(tiny(lampe=tiny_config(length_policy="prompt")))
    mapped = args.mapping(file, use_lampe=True)
    assert mapped.overrides == {"llama.rope.scaling.lampe.length_policy": "causal"}
    assert len(mapped.notes) == 1 and "causal" in mapped.notes[0]


def test_only_what_changes_memory_is_counted() -> None:
    given = ["--cache-type-k", "q8_0", "--slots", "-ctv=q4_0", "--override-kv", "a=int:1",
             "--temp", "0"]
    assert memory.counted(given) == ["--cache-type-k", "q8_0", "-ctv=q4_0", "--override-kv",
                                     "a=int:1"]


def test_free_memory_is_the_systems_or_the_containers(tmp_path: Path) -> None:
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text("MemTotal:  9000000 kB\nMemAvailable:   8388608 kB\n")
    cgroup.mkdir()
    assert free_memory(meminfo, cgroup) == 8 * GIB
    (cgroup / "memory.max").write_text("max\n")
    assert free_memory(meminfo, cgroup) == 8 * GIB
    (cgroup / "memory.max").write_text(f"{2 * GIB}\n")
    (cgroup / "memory.current").write_text(f"{GIB}\n")
    (cgroup / "memory.stat").write_text(f"anon 7\ninactive_file {GIB // 2}\n")
    assert free_memory(meminfo, cgroup) == GIB + GIB // 2


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """llama.cpp's count, simulated: 1 GiB of model, 64 KiB for each token; what was asked."""
    asked: list[int] = []

    def count(model: Path, options: object, n_ctx: int, n_slots: int) -> Need:
        asked.append(n_ctx)
        return Need({"Host": GIB}, {"Host": n_ctx * n_slots * 65536}, {"Host": 64 * MIB})

    monkeypatch.setattr(memory, "measure", count)
    return asked


def fit(free: float, slots: int = 1) -> Fitted:
    return memory.fit(Path("m.gguf"), [], 32768, slots, {"Host": int(free)})


def test_the_context_is_as_long_as_there_is_memory_for(counting: list[int]) -> None:
    assert fit(16 * GIB).n_ctx == 32768 and counting == [32768]
    fitted = fit(2.2 * GIB, slots=2)
    assert 512 < fitted.n_ctx < 8192 and fitted.n_ctx % 256 == 0
    room = 2.2 * GIB * (1 - memory.KEPT_FREE)
    assert room - 2 * 256 * 65536 < fitted.need.on("Host") <= room
    assert fitted.left is not None and 0 <= fitted.left < 2 * 256 * 65536
    with pytest.raises(LampeError, match="1.2 GB with the shortest context and 1.1 GB are free"):
        fit(GIB)


@pytest.mark.parametrize("kv, free, said", [
    (6 * GIB, 16 * GIB, "keys and values 6.4 GB (98,304 bytes a token), earlier prompts up to "
                        "3.2 GB; 17.2 GB were free"),
    (0, None, "keys and values under 1 MB, earlier prompts up to 3.2 GB"),
])
def test_what_it_takes_is_said(kv: int, free: int | None, said: str) -> None:
    fitted = Fitted(32768, Need({"Host": GIB}, {"Host": kv}, {"Host": 0}), {"Host": free})
    assert memory_line(fitted, 2, 3 * GIB) == f"memory    model 1.1 GB, {said}"


def test_a_context_that_was_asked_for_is_refused_where_it_does_not_fit() -> None:
    need = Need({"Host": GIB}, {"Host": 2 * GIB}, {"Host": 0})
    memory.require_room(Fitted(32768, need, {"Host": 4 * GIB}))
    memory.require_room(Fitted(32768, need, {"Host": None}))
    with pytest.raises(LampeError, match="32,768 tokens takes 2.1 GB, 3.2 GB with the model, and "
                                         "2.1 GB are free"):
        memory.require_room(Fitted(32768, need, {"Host": 2 * GIB}))


def test_a_backend_without_the_server_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(api, "library_path", lambda: str(tmp_path / "libllama.so"))
    with pytest.raises(LampeError, match="was built without llama-server; run python3 tools/backe"):
        programs.find_program(programs.SERVER)
    (tmp_path / "llama-server").touch()
    assert programs.find_program(programs.SERVER) == tmp_path / "llama-server"


def test_a_reason_is_found_in_the_log() -> None:
    lines = ["0.00.1 I load: fine",
             "0.00.2 E llama_model_load: error loading model: no such thing",
             "0.00.3 E srv  load_model: failed to load model, 'm.gguf'"]
    said = log.reason(lines, Path("d/m.gguf"))
    assert said == "m.gguf cannot be served: no such thing"
    assert "gave no reason" in log.reason(["0.00.1 I load: fine"], Path("m.gguf"))
