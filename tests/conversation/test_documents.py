"""What people have is read for its text, and what is not in the text is said."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PROGRAM, call, tiny_config
from made_documents import LOCKED_PDF, archive, docx, epub, odt, paragraph, pdf
from time_limit import time_limit

from lampe_gguf import Document, LampeError
from lampe_gguf.conversation import aside, extract
from lampe_gguf.conversation.documents import CITE, as_message, read_document
from lampe_gguf.conversation.kinds import kind_of

TABLE = (f"<w:tbl><w:tr><w:tc>{paragraph('tea')}</w:tc><w:tc>{paragraph('2')}</w:tc></w:tr>"
         f"<w:tr><w:tc>{paragraph('milk')}</w:tc><w:tc>{paragraph('3')}</w:tc></w:tr></w:tbl>")
ODT_TABLE = ("<table:table>" + "".join(
    "<table:table-row>" + "".join(f"<table:table-cell><text:p>{cell}</text:p></table:table-cell>"
                                  for cell in row) + "</table:table-row>"
    for row in (("tea", "2"), ("milk", "3"))) + "</table:table>")
ENTITY = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
PAGE = ("<html><head><title>Shop</title><style>p {color: red}</style></head><body><h1>Shop</h1>"
        "<p>Open <a href='x'>daily</a>, snake_case *too*.<script>alert(1)</script></p>"
        "<img src='x.png'></body></html>")
SAMPLES = {
    "a.pdf": pdf(["First (of two).\nIt goes on.", "Second page."]),
    "a.docx": docx(paragraph("Shop", "Heading1") + paragraph("Open daily, snake_case *too*.")
                   + TABLE, more={"word/comments.xml": "<c/>", "word/header1.xml": "<h/>"}),
    "a.odt": odt('<text:h text:outline-level="1">Shop</text:h><text:p>Open daily.</text:p>'
                 + ODT_TABLE),
    "a.epub": epub({"two words.xhtml": PAGE, "b.xhtml": "<html><body><p>Then.</p></body></html>"}),
    "a.html": PAGE.encode(),
}


def read(path: Path, data: bytes) -> Document:
    path.write_bytes(data)
    return read_document(str(path), to_ask=True, label=path.name)


def refused(path: Path, data: bytes) -> str:
    with pytest.raises(LampeError) as raised:
        read(path, data)
    assert "\n" not in str(raised.value) and str(raised.value).startswith(path.name)
    return str(raised.value)


@pytest.mark.parametrize("name", ["a.docx", "a.odt"])
def test_office_files_keep_headings_and_tables(name: str, tmp_path: Path) -> None:
    found = read(tmp_path / name, SAMPLES[name])
    assert found.text.startswith("# Shop\n\nOpen daily") and found.pages is None
    rows = [line.replace(" ", "") for line in found.text.splitlines() if line.startswith("|")]
    assert rows[0] == "|tea|2|" and rows[-1] == "|milk|3|"
    if name == "a.docx":
        assert "snake_case *too*" in found.text
        assert found.left_out == ("comments are left out", "headers and footers are left out")


def test_a_pdf_has_pages(tmp_path: Path) -> None:
    found = read(tmp_path / "a.pdf", SAMPLES["a.pdf"])
    assert found.text == ("[page 1]\nFirst (of two).\nIt goes on.\n\n[page 2]\nSecond page.")
    assert found.pages == 2 and found.left_out == ()
    assert found.said() == f"a.pdf: 2 pages, {len(found.text)} characters"
    message = as_message([found], "Why?")
    assert message.endswith(f"{CITE}\nWhy?") and "Document: a.pdf\n\n[page 1]" in message
    # what a conversation keeps of it is name and text: the message must be the same
    assert as_message([Document(found.name, found.text)], "Why?") == message
    assert CITE not in as_message([Document("a.txt", "page 1 of [page 2] it")], "Why?")


def test_pages_without_text(tmp_path: Path) -> None:
    path = tmp_path / "scan.pdf"
    found = read(path, pdf(["One.", "", "", "Four."], pictures=[1]))
    assert found.text.split("\n\n") == [
        "[page 1]\nOne.", "[page 2: no text]", "[page 3: no text]", "[page 4]\nFour."]
    assert found.left_out[0].startswith("1 of 4 pages have no text (scanned?): OCR them first")
    assert found.left_out[1] == "1 picture is left out"  # the blank page lacks nothing
    assert "ocrmypdf" in refused(path, pdf(["", ""], pictures=[0, 1]))


def test_what_prints_nothing_is_taken_out() -> None:
    assert extract.clean("admin\ufffe\r\nistrator\u00a0\r\rof\x02 it \n\n\n\n\0x") == (
        "administrator\n\nof it\n\nx")
    leaders = pdf(["1 Introduction . . . . . . . . . . . . . . . . . . . . 7", "So ... it was."])
    found = [each.get("text") for each in extract.pdf(leaders)]
    assert found[1:3] == ["1 Introduction ... 7", "So ... it was."]


def test_a_book_in_its_order(tmp_path: Path) -> None:
    found = read(tmp_path / "a.epub", SAMPLES["a.epub"])
    assert found.text == "# Shop\n\nOpen daily, snake_case *too*.\n\nThen."
    assert found.left_out == ("1 picture is left out",)


def test_web_pages(tmp_path: Path) -> None:
    found = read(tmp_path / "saved", PAGE.encode())  # by its content
    assert found.text == "# Shop\n\nOpen daily, snake_case *too*."
    piece = read(tmp_path / "piece.html", "<p>caf\u00e9</p>".encode("cp1252"))  # by its name
    assert piece.text == "caf\u00e9"
    named = "<meta charset='koi8-r'><p>\u0447\u0430\u0439".encode("koi8-r")
    assert read(tmp_path / "named.html", named).text == "\u0447\u0430\u0439"
    # what measures reads files as they are
    assert read_document(str(tmp_path / "saved")).text == PAGE


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_say_what_they_are(encoding: str, tmp_path: Path) -> None:
    text = "\u00e9t\u00e9 \U0001f600\nsecond line"
    assert read(tmp_path / "a.txt", text.encode(encoding)).text == text
    cut = text.encode("utf-16")[:-1]
    assert "UTF-16" in refused(tmp_path / "b.txt", cut)


def test_kinds_go_by_content_first(tmp_path: Path) -> None:
    for name, data in SAMPLES.items():
        right = read(tmp_path / name, data)
        wrong = read(tmp_path / f"{name[2:]}.txt", data)
        assert wrong.text == right.text and right.text
    assert read(tmp_path / "b.pdf", b"no PDF, but text").text == "no PDF, but text"


def test_standard_input_and_the_same_text_each_time(tmp_path: Path) -> None:
    code = ("import sys; from lampe_gguf import Document; "
            "sys.stdout.reconfigure(encoding='utf-8'); print(Document.read('-').text, end='')")
    for name, data in SAMPLES.items():
        done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
        found = read(tmp_path / name, data)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode("utf-8").replace("\r\n", "\n") == found.text
        assert read(tmp_path / name, data) == found


REFUSED = {
    "locked.pdf": (LOCKED_PDF, "needs a password"),
    "cut.pdf": (SAMPLES["a.pdf"][:60], "damaged"),
    "entity.docx": (docx(paragraph("&b;"), ENTITY), "defines XML entities"),
    "entity.odt": (odt("<text:p>&b;</text:p>", ENTITY), "defines XML entities"),
    "entity.epub": (epub({"a": "x"}, ENTITY), "defines XML entities"),
    "locked.odt": (odt("x", manifest="<manifest:encryption-data/>"), "is encrypted"),
    "locked.epub": (epub({"a.xhtml": PAGE}, more={
        "META-INF/encryption.xml": '<e><CipherReference URI="OEBPS/a.xhtml"/></e>'}), "DRM"),
    "bomb.docx": (docx(paragraph("x"), more={"word/x.xml": bytes(80 << 20)}), "unpacks to 84 MB"),
    "bomb.epub": (epub({"a.xhtml": " " * (80 << 20)}), "unpacks to 84 MB"),
    "deep.html": (b"<html>" + b"<b>" * 5000 + b"x", "nested too deep"),
    "empty.docx": (docx(paragraph("")), "has no text"),
    "old.doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "save it as .docx"),
    "a.rtf": (rb"{\rtf1 text}", "is RTF"),
    "a.png": (b"\x89PNG\r\n\x1a\n" + bytes(40), "is a picture"),
    "a.zip": (archive({"a.txt": "x"}), "unpack it"),
    "a.xlsx": (archive({"xl/workbook.xml": "<x/>"}), "spreadsheet"),
    "b.docx": (b"PK\x03\x04 and no more", "damaged"),
    "b.pdf": (b"\x80\x81\0" * 99, "damaged"),
    "a.bin": (b"\x80\x81\0" * 99, "is not UTF-8 text"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read(name: str, tmp_path: Path) -> None:
    data, said = REFUSED[name]
    assert said in refused(tmp_path / name, data)


def test_a_damaged_document_is_one_sentence(tmp_path: Path) -> None:
    """Cut off and with bits turned over, of each kind: text or a sentence, nothing else."""
    chance = random.Random(20)
    read_ok = 0
    for name, data in SAMPLES.items():
        for number in range(int(os.environ.get("LAMPE_FUZZ", "4"))):
            changed = bytearray(data)
            for _ in range(chance.choice([1, 8, 64])):
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            if number % 2:
                del changed[chance.randrange(1, len(changed)):]
            try:
                read_ok += bool(read(tmp_path / name, bytes(changed)).text)
            except LampeError as error:
                assert "\n" not in str(error) and name in str(error)
    assert read_ok


def test_a_reader_that_hangs_or_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "START", "import os; os.abort()")
    assert "broke down on it" in refused(tmp_path / "a.pdf", SAMPLES["a.pdf"])
    monkeypatch.setattr(aside, "START", "import time; time.sleep(60)")
    monkeypatch.setattr(aside, "MOST_SECONDS", 0.5)
    start = time.monotonic()
    assert "was not read in" in refused(tmp_path / "a.pdf", SAMPLES["a.pdf"])
    assert time.monotonic() - start < 5


@pytest.mark.skipif(sys.platform != "linux", reason="bounds memory as Linux does")
def test_a_reader_that_takes_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = aside.START.replace("main(sys.argv[2])", "import lampe_gguf.conversation.extract as e; "
                                "e.READERS['pdf'] = lambda data: [bytes(5 << 30)]; main('pdf')")
    monkeypatch.setattr(aside, "START", start)
    assert "takes more than 4.3 GB of memory" in refused(tmp_path / "a.pdf", SAMPLES["a.pdf"])


def test_nothing_beside_the_documents_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mammoth", "zipfile", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert read(tmp_path / "a.docx", SAMPLES["a.docx"]).text


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    for name, data in SAMPLES.items():
        (tmp_path / name).write_bytes(data)
    code = ("import sys\nfor name in ('pypdfium2', 'mammoth', 'markdownify', 'odfdo'):\n"
            "    sys.modules[name] = None\n"
            "from lampe_gguf import Document, LampeError\nfor name in sys.argv[1:]:\n"
            "    try:\n        Document.read(name)\n"
            "    except LampeError as error:\n        print(error)")
    done = subprocess.run([sys.executable, "-c", code, *SAMPLES], capture_output=True, text=True,
                          cwd=tmp_path)
    said = done.stdout.splitlines()
    assert len(said) == len(SAMPLES), done.stderr
    wanted = f'{sys.executable} -m pip install "lampe-gguf[documents]"'
    assert all(each.endswith(wanted) for each in said)


def test_ask_and_chat_say_what_they_read(tiny: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(SAMPLES["a.pdf"])
    model = tiny(lampe=tiny_config(context_length=4096))
    done = call("ask", model, "?", "--doc", tmp_path / "a.pdf", "--max-tokens", 2, "--json")
    answer = json.loads(done.stdout)
    assert answer["documents"] == [{"name": str(tmp_path / "a.pdf"), "pages": 2, "characters": 59,
                                    "left_out": []}]
    assert answer["sources"] == [] and "a.pdf: 2 pages, 59 characters" in done.stderr
    (tmp_path / "scan.pdf").write_bytes(pdf([""], pictures=[0]))
    for arguments in (("ask", model, "?", "--doc", tmp_path / "scan.pdf"),
                      ("chat", model, "--doc", tmp_path / "scan.pdf")):
        done = call(*arguments)
        assert done.returncode == 1 and "ocrmypdf" in done.stderr and "Trace" not in done.stderr
    done = call("chat", model, "--max-tokens", 2, stdin=f"/doc {tmp_path / 'a.pdf'}\n?\n")
    assert "a.pdf: 2 pages, 59 characters" in done.stdout
    with open(tmp_path / "a.pdf", "rb") as file:
        piped = subprocess.run(
            [*PROGRAM, "ask", str(model), "?", "--doc", "-", "--max-tokens", "2"],
            stdin=file, capture_output=True, text=True)
    assert piped.returncode == 0 and "standard input: 2 pages" in piped.stderr


def test_many_comments_before_a_text_cost_no_time(tmp_path: Path) -> None:
    for data, kind in ((b"<!-- a -->\n" * 300 + b"# Hi", "text"),
                       (b"<!-- a --> <!-- <b> -->\n" * 20 + b"<!DOCTYPE html>", "html"),
                       (b"<!--" * 1000, "text")):
        with time_limit(10):
            assert kind_of(data, "notes.md") == kind


def test_a_disk_without_room_for_a_copy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(aside.tempfile, "TemporaryFile", full)
    path = tmp_path / "a.html"
    path.write_text("<html>text</html>")
    with pytest.raises(LampeError, match=r"a\.html .*No space left on device; .*\$TMPDIR"):
        Document.read(path)
