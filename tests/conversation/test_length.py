"""Texts that are too long are refused by a part of them, in pieces, with advice that helps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from conftest import PROGRAM, call, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from lampe_gguf.backend.vocabulary import vocabulary
from lampe_gguf.conversation import documents, length
from lampe_gguf.conversation.length import PIECE, count_up_to, longest_token, pieces
from lampe_gguf.conversation.session import too_long

TEXT = "\n\n".join(topics[name] for name in sorted(topics))


@given(st.lists(st.text(st.sampled_from("ab \n"), max_size=200), max_size=4))
def test_pieces_are_the_text(texts: list[str]) -> None:
    size = length.PIECE
    length.PIECE = 16
    try:
        found = list(pieces(texts))
    finally:
        length.PIECE = size
    assert "".join(found) == "".join(texts)
    assert all(0 < len(piece) <= 16 for piece in found)


def test_the_count_is_right_to_a_hair(smollm2_path: Path) -> None:
    with vocabulary(smollm2_path) as vocab:
        for text in (TEXT[:300_000], "a" * 50_000, " " * 70_000, "\u4f60\u597d " * 30_000, ""):
            whole = len(vocab.tokenize(text.encode(), False, False))
            count = count_up_to(vocab, [text], 10**6)
            n_pieces = -(-len(text) * 2 // PIECE)
            assert not count.is_too_long and abs(count.tokens - whole) <= 2 * n_pieces
        assert longest_token(vocab) >= max(len(vocab.token_get_text(i)) for i in range(1000))


def test_counting_stops_when_it_is_too_much(smollm2_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with vocabulary(smollm2_path) as vocab:
        whole = len(vocab.tokenize(TEXT.encode(), False, False))
        count = count_up_to(vocab, [TEXT], 20_000, lambda *x: seen.append(x))
        assert count.is_too_long and seen[-1][0] < len(TEXT) / 3
        assert abs(count.tokens - whole) < whole / 4
        seen.clear()
        # of one look, where no vocabulary could do it
        count = count_up_to(vocab, [TEXT * 10], 100, lambda *x: seen.append(x))
        assert count.is_too_long and len(seen) == 1


def test_advice_is_sensible() -> None:
    near = str(too_long(40_000, 32_768, 8192, 4.0))
    assert ("; convert the model for more: lampe-gguf convert MODEL --force "
            "--context-length 40192, or give less text, or cut what") in near
    assert "--context-length 42240" in str(too_long(40_000, 32_768, 8192, 4.0, "about "))
    far = str(too_long(4_000_000, 32_768, 8192, 4.0, "about "))
    assert "about 4,000,000 tokens" in far and "at most about 130,000 characters" in far
    assert "--context-length 65536" in far and "4000" not in far.replace("4,000,000", "")
    widest = str(too_long(4_000_000, 65_536, 8192, 4.0))
    assert "--context-length" not in widest and "260,000 characters" in widest
    plain = str(too_long(400_000, None, 8192, 4.0))
    assert "8,192 without LaMPE" in plain and "33,000 characters" in plain


# a process that was started by a large one counts that one's memory as its own until it is another
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_twenty_megabytes_are_refused_at_once(smollm2_path: Path, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text((TEXT * 50)[:20_000_000], encoding="utf-8")
    for command in ("ask", "chat"):
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *PROGRAM, command, str(smollm2_path),
             *["?"] * (command == "ask"), "--doc", str(book)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )
        assert done.returncode == 1
        assert "this model supports 32,768; ask about a part" in done.stderr
        assert time.monotonic() - start < 15 and int(done.stdout) < 250_000


@pytest.mark.alone
@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_ctrl_c_need_not_wait_for_the_count(smollm2_path: Path, tmp_path: Path) -> None:
    book, wide = tmp_path / "book.txt", tmp_path / "wide.gguf"
    book.write_text(TEXT * 40, encoding="utf-8")
    assert call("convert", smollm2_path, wide, "--context-length", 2**23).returncode == 0
    process = subprocess.Popen([*PROGRAM, "ask", str(wide), "--doc", str(book), "?"],
                               stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    time.sleep(3.0)
    assert process.poll() is None
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert "stopped" in process.stderr.read() and process.wait(30) == 130
    assert time.monotonic() - start < 3


def test_a_file_beyond_every_context_is_not_read(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = tmp_path / "huge.txt"
    with huge.open("wb") as file:
        file.truncate(2**40)  # a hole: there is no memory to read it into
    done = call("ask", tiny(), "--doc", huge, "?")
    assert done.returncode == 1 and "has more than 256 MB" in done.stderr
    monkeypatch.setattr(documents, "MOST_BYTES", 10)
    (tmp_path / "ten").write_text("0123456789")
    assert documents.read_document(str(tmp_path / "ten"), to_ask=True).text == "0123456789"


def test_a_document_in_a_chat_that_cannot_fit(tiny: Callable[..., Path], tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("It was a dark and stormy night. " * 40)
    path = tiny(lampe=tiny_config(context_length=4096))
    done = call("chat", path, "--n-ctx", 512, "--max-tokens", 2, stdin=f"/doc {book}\nHello\n")
    assert "about 1,280 tokens and the context holds 512" in done.stderr
    assert done.returncode == 0 and "[0 of 512" in done.stdout
    early = call("chat", path, "--n-ctx", 512, "--doc", book)
    assert early.returncode == 2 and "give at least --n-ctx 13" in early.stderr
