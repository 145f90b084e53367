"""The page of llama-server in a real browser: a long document is pasted, asked about, stopped."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, find_browser, opened
from conftest import tiny_config
from serving_side import Client, require_server, served
from tiny_model import make_tiny_model

from lampe_gguf.backend import programs

pytestmark = pytest.mark.alone
WINDOW = 512
# asked of a random model: that it answers and when matters, not what
DOCUMENT = "The keeper of the light wrote down every ship that passed. " * 250
INPUT = "document.querySelector('[contenteditable=true], textarea')"
PASTE = """((input, text) => {
  const data = new DataTransfer();
  data.setData('text/plain', text);
  input.dispatchEvent(
    new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true}));
})"""
STOP = "[...document.querySelectorAll('button')].find(b => b.innerText.trim() == 'Stop')"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    require_server()
    if why := programs.why_no_page():
        pytest.skip(f"llama-server has no page: {why}")
    config = tiny_config(window=WINDOW, context_length=65536, max_mapping_length=500.0,
                         local_window=256, tail_window=16)
    model = make_tiny_model(tmp_path_factory.mktemp("page") / "tiny.gguf", window=WINDOW,
                            lampe=config, n_layer=3)
    with served(model, "--n-predict", "64", "--ignore-eos", slots=1, ctx=65536) as found:
        yield found


@pytest.fixture
def page(client: Client, tmp_path: Path) -> Iterator[Page]:
    program = find_browser()
    if program is None:
        pytest.skip("there is no Chromium (Debian, Ubuntu: apt install chromium)")
    with opened(program, tmp_path / "profile") as found:
        found.call("Page.navigate", url=client.url)
        found.until(f"!!{INPUT}")
        found.run(f"{INPUT}.focus()")
        yield found


def test_a_pasted_document_is_read_with_progress_and_answered(page: Page, client: Client,
                                                              tmp_path: Path) -> None:
    page.run(f"{PASTE}({INPUT}, {json.dumps(DOCUMENT)})")
    page.until("document.body.innerText.includes('Pasted')")
    page.type("Who wrote down the ships?")
    page.press("Enter")
    shown = page.until("(document.body.innerText.match(/Processing.{0,3}[1-9]\\d?%/) || [])[0]")
    assert "%" in shown
    page.until(f"!({STOP})", 120)
    assert not client.get("/slots")[0]["is_processing"]
    said = page.run("document.querySelector('[aria-label^=\"Assistant message\"]').innerText")
    assert "64 tokens" in said, said
    read = re.search(r"(\d+) tokens", page.text())
    assert read and int(read[1]) > len(DOCUMENT) > 25 * WINDOW
    keep_picture(page, tmp_path, "answered.png")


def test_stop_stops(page: Page, client: Client, tmp_path: Path) -> None:
    page.run(f"{PASTE}({INPUT}, {json.dumps(DOCUMENT[::-1])})")
    page.until("document.body.innerText.includes('Pasted')")
    page.type("And who read it?")
    page.press("Enter")
    page.until(f"!!({STOP})")
    page.until("/Processing/.test(document.body.innerText)")
    assert client.get("/slots")[0]["is_processing"]
    keep_picture(page, tmp_path, "reading.png")
    page.run(f"{STOP}.click()")
    page.until(f"!({STOP})", 5)
    end = time.monotonic() + 5
    while client.get("/slots")[0]["is_processing"]:
        assert time.monotonic() < end, "the slot is not free"
        time.sleep(0.1)


def keep_picture(page: Page, folder: Path, name: str) -> None:
    """For whoever wants to see it: in $LAMPE_SCREENSHOTS."""
    page.picture(Path(os.environ.get("LAMPE_SCREENSHOTS", folder)) / name)
