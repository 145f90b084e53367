"""What does not fit is refused with the ways out, or cut as it is asked for, which is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import call, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from lampe_gguf import Document, LampeError, UsageError, ask
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.conversation.fit import fit_documents
from lampe_gguf.conversation.places import pages_of, paragraphs_of
from lampe_gguf.conversation.session import tokens_to_ask, too_long
from lampe_gguf.model.cache import cache_bytes
from lampe_gguf.model.choose import read_file

BOOK = "\n\n".join(f"Paragraph {n} of the book, which says little." for n in range(100))
PAPER = "\n\n".join(f"[page {n}]\nThis is what page {n} says." for n in range(1, 41))


def documents() -> list[Document]:
    return [Document("book.txt", BOOK), Document("paper.pdf", PAPER, pages=40),
            Document("note.txt", "Short, and kept whole.")]


@given(st.text(st.sampled_from("ab. \n"), max_size=400), st.integers(10, 60))
def test_paragraphs_are_the_text(text: str, length: int) -> None:
    pieces = paragraphs_of(text, length)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(piece) <= 2 * length + 2 for piece in pieces)


def test_pages_are_the_text() -> None:
    text = f"[... 3 pages left out here ...]\n\n{PAPER}\n\n[page 41: no text]"
    pages = pages_of(text)
    assert [page.number for page in pages] == [None, *range(1, 42)]
    assert "\n\n".join(page.text for page in pages) == text
    assert [page.number for page in pages_of("no [page 1] here")] == [None]


@pytest.mark.parametrize("way", ["newest", "spread"])
@pytest.mark.parametrize("n_ctx", [800, 1000, 2000, 2600])
def test_what_is_cut_fits_and_is_said(way: str, n_ctx: int, tiny: Callable[..., Path]) -> None:
    model = tiny(lampe=tiny_config(context_length=4096))
    notes: list[str] = []
    cut = fit_documents(model, documents(), "Why?", way, n_answer=20, n_ctx=n_ctx,
                        on_note=notes.append)
    needed = tokens_to_ask(model, cut, "Why?", n_answer=20, n_ctx=n_ctx)
    assert needed <= n_ctx
    book, paper, note = cut
    assert note == documents()[2]
    kept = [page for page in pages_of(paper.text) if page.number]
    assert paper.left_out == (f"kept {len(kept)} of 40 pages",)
    assert notes == [f"{each.name}: {each.left_out[-1]}" for each in (book, paper)]
    assert all(page.text.split(" [...")[0].split("\n\n")[0] in PAPER for page in kept)
    numbers = [page.number for page in kept]
    if way == "newest":
        assert numbers == list(range(41 - len(kept), 41)) and book.text.endswith(BOOK[-45:])
        assert paper.text.startswith(f"[... {40 - len(kept)} pages left out here ...]\n\n[page ")
    elif len(kept) > 1:
        assert numbers[0] == 1 and numbers[-1] == 40
        steps = [after - before for before, after in zip(numbers, numbers[1:], strict=False)]
        assert max(steps) - min(steps) <= 1
        assert paper.text.count("left out here") == sum(step > 1 for step in steps)
    if n_ctx > 1000:
        assert needed > n_ctx * 3 // 4  # the room is used


def test_what_fits_is_left_alone(tiny: Callable[..., Path]) -> None:
    model = tiny(lampe=tiny_config(context_length=2**17))
    whole = documents()
    needed = tokens_to_ask(model, whole, "Why?", n_answer=20)
    for n_ctx in (None, needed):
        assert fit_documents(model, whole, "Why?", "newest", n_answer=20, n_ctx=n_ctx) == whole
    assert fit_documents(model, whole, "Why?", "newest", n_answer=20, n_ctx=needed - 1) != whole


def test_another_question_gets_the_same_text(tiny: Callable[..., Path]) -> None:
    model = tiny(lampe=tiny_config(context_length=4096))
    for way in ("newest", "spread"):
        cut = [fit_documents(model, documents(), question, way, n_answer=50)
               for question in ("Why?", "Who wrote it, and when?")]
        assert cut[0] == cut[1] != documents()


def test_no_room_at_all(tiny: Callable[..., Path]) -> None:
    model = tiny(lampe=tiny_config(context_length=4096))
    with pytest.raises(LampeError, match="no room for a page of paper.pdf; give fewer documents"):
        fit_documents(model, documents()[1:2], "Why?", "spread", n_ctx=90)
    with pytest.raises(UsageError, match="newest and spread"):
        fit_documents(model, documents(), "Why?", "oldest")
    with pytest.raises(LampeError, match="without the documents, .* already"):
        ask(model, "Why? " * 2000, documents(), fit="newest")


def test_ask_cuts_where_it_is_told_to(tiny: Callable[..., Path], tmp_path: Path) -> None:
    model = tiny(lampe=tiny_config(context_length=1024))
    book = tmp_path / "book.txt"
    book.write_text(BOOK)
    done = call("ask", model, "?", "--doc", book, "--max-tokens", 2)
    assert done.returncode == 1 and "--fit newest or --fit spread" in done.stderr
    done = call("read", model, "--doc", book, "--readings-max", "1G")  # has no such option
    assert done.returncode == 1 and "or give less text" in done.stderr
    assert "--fit" not in done.stderr
    done = call("ask", model, "?", "--doc", book, "--max-tokens", 2, "--fit", "spread", "--json")
    assert done.returncode == 0 and "book.txt: kept " in done.stderr
    said = json.loads(done.stdout)["documents"][0]
    assert said["left_out"][0].startswith("kept ") and said["characters"] < len(BOOK)
    done = call("chat", model, "--doc", book, "--max-tokens", 2, "--fit", "newest", stdin="?\n")
    assert done.returncode == 0 and "error" not in done.stderr
    done = call("ask", model, "?", "--doc", book, "--fit", "oldest")
    assert done.returncode == 2


def test_the_ways_out() -> None:
    several = str(too_long(40_000, 32_768, 8192, 4.0, documents=documents(),
                           cache=lambda n_ctx: n_ctx * 1000))
    assert "--context-length 40192 (its cache takes 40 MB)" in several
    assert "leave out book.txt, the largest of 3 (about 1,100 tokens)" in several
    assert several.endswith("or cut what does not fit with --fit newest or --fit spread")
    assert "--fit" not in str(too_long(40_000, 32_768, 8192, 4.0, can_cut=False))


def test_the_memory_is_what_llama_cpp_takes(tiny: Callable[..., Path]) -> None:
    model = tiny()
    said = cache_bytes(read_file(model).info, 512)
    with LampeLlama(str(model), n_ctx=512, verbose=False) as llm:
        shape = llm.metadata
        heads = int(shape["llama.attention.head_count_kv"])
        width = int(shape["llama.embedding_length"]) // int(shape["llama.attention.head_count"])
        layers = int(shape["llama.block_count"])
    assert said == 512 * layers * heads * width * 2 * 2
