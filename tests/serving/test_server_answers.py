"""What a server answers beyond the window does not depend on what else it serves or has kept."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import call, tiny_config
from serving_side import Client, require_server, same, served
from tiny_model import make_tiny_model

ROOT = Path(__file__).resolve().parents[2]
WINDOW, N_CTX = 32, 1024
GEMMA = {"gemma3.attention.sliding_window": 24, "gemma3.attention.sliding_window_pattern": 2}
SHORT = "The lamp was lit at dusk. " * 4
LONG = "Ships came in with the tide, and the harbour was full of them. " * 6
OTHER = "Nothing of this was said before. " * 3


# rounded keys and values would hide small differences
EXACT = ("--cache-type-k", "f32", "--cache-type-v", "f32")


def make_model(folder: Path, arch: str, **options: Any) -> Path:
    extra = GEMMA if arch == "gemma3" else {}
    return make_tiny_model(folder / f"{arch}.gguf", arch=arch, window=WINDOW, extra=extra,
                           lampe=tiny_config(context_length=N_CTX), **options)


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
           ) -> Iterator[Client]:
    require_server()
    folder = tmp_path_factory.mktemp(request.param)
    with served(make_model(folder, request.param), "--slot-save-path", str(folder), *EXACT,
                slots=2) as found:
        yield found


def anew(client: Client, prompt: str, n: int = 8) -> Any:
    """What it answers where nothing that it has kept is used."""
    said = client.complete(prompt, n, cache_prompt=False)
    assert said["timings"]["cache_n"] == 0 and len(said["tokens"]) == n
    return said


def test_prompts_are_longer_than_the_window(client: Client) -> None:
    counts = [len(client.post("/tokenize", content=text)["tokens"]) for text in (SHORT, LONG)]
    assert WINDOW < counts[0] < counts[1] / 2
    assert client.get("/props")["default_generation_settings"]["n_ctx"] == N_CTX


def test_two_at_a_time_get_what_each_gets_alone(client: Client) -> None:
    n = 160
    alone = [anew(client, prompt, n) for prompt in (SHORT, LONG)]
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(client.complete, prompt, n, id_slot=slot, cache_prompt=False)
                 for slot, prompt in enumerate((SHORT, LONG))]
        at_once = 0
        while not all(each.done() for each in asked):
            at_once = max(at_once, sum(slot["is_processing"] for slot in client.get("/slots")))
        together = [each.result() for each in asked]
    assert at_once == 2
    for one, other in zip(alone, together, strict=True):
        same(one, other)


def test_a_cached_prefix_answers_as_read_anew(client: Client) -> None:
    fresh = anew(client, LONG + OTHER)
    client.complete(LONG, id_slot=0, n=1)
    kept = client.complete(LONG + OTHER, id_slot=0)
    assert kept["timings"]["cache_n"] >= len(LONG)
    same(fresh, kept)


def test_a_prompt_that_lost_its_slot_comes_back_from_memory(client: Client) -> None:
    fresh = anew(client, LONG + SHORT)
    client.complete(LONG + SHORT, id_slot=0, n=1)
    for slot in (0, 1):  # no slot holds it any more
        client.complete(OTHER, id_slot=slot, n=1)
    back = client.complete(LONG + SHORT)
    assert back["timings"]["prompt_n"] < len(SHORT)
    same(fresh, back)


def test_a_saved_slot_is_read_no_second_time(client: Client) -> None:
    fresh = anew(client, LONG + "And then?")
    client.complete(LONG, id_slot=0, n=1)
    saved = client.post("/slots/0?action=save", filename="long.bin")
    assert saved["n_saved"] >= len(LONG)
    for slot in (0, 1):
        client.post(f"/slots/{slot}?action=erase")
    restored = client.post("/slots/1?action=restore", filename="long.bin")
    assert restored["n_restored"] == saved["n_saved"]
    back = client.complete(LONG + "And then?", id_slot=1)
    assert back["timings"]["prompt_n"] < len(LONG) / 2, back["timings"]
    same(fresh, back)


def test_reused_parts_answer_as_read_anew(tmp_path: Path) -> None:
    # with one layer a key depends on its own token alone, so that moving it must change nothing
    model = make_model(tmp_path, "llama", n_layer=1)
    with served(model, "--cache-reuse", "16", *EXACT, slots=1) as client:
        fresh = anew(client, LONG + OTHER)
        client.complete(SHORT + LONG + OTHER, n=1)
        moved = client.complete(LONG + OTHER)
        assert moved["timings"]["cache_n"] >= len(LONG)
        same(fresh, moved)


def test_a_shifted_context_goes_on_as_read_anew(tmp_path: Path) -> None:
    model = make_model(tmp_path, "llama", n_layer=1)
    with served(model, "--context-shift", *EXACT, slots=1, ctx=256) as client:
        prompt = client.post("/tokenize", content=SHORT)["tokens"]
        said = client.complete(prompt, n=300)
        assert said["truncated"] and len(said["tokens"]) == 300
        # the first half of 255 tokens goes, and what comes next is said of the others
        tokens = prompt + said["tokens"]
        fresh = client.complete(tokens[127:256], n=60, cache_prompt=False)
        assert fresh["tokens"] == tokens[256 : 256 + 60]


def test_a_real_model_beyond_its_window_restored_cached_and_anew(
    smollm2_path: Path, tmp_path: Path
) -> None:
    require_server()
    model = tmp_path / "narrow.gguf"
    done = call("convert", smollm2_path, model, "--window", "512", "--context-length", "2048")
    assert done.returncode == 0, done.stderr
    text = (ROOT / "LICENSE").read_text(encoding="utf-8") * 5
    question = "\n\nThe license above is called"
    with served(model, "--slot-save-path", str(tmp_path), slots=1) as client:
        fresh = anew(client, text + question)
        assert fresh["timings"]["prompt_n"] > 2 * 512
        client.complete(text, n=1)
        client.post("/slots/0?action=save", filename="text.bin")
        kept = client.complete(text + question)
        client.post("/slots/0?action=erase")
        client.post("/slots/0?action=restore", filename="text.bin")
        restored = client.complete(text + question)
    for other in (kept, restored):
        assert other["timings"]["prompt_n"] < 32
        same(fresh, other, 0.1)
