"""What kind of document some bytes are: by what they say, then by the name's ending."""

from __future__ import annotations

import codecs
import contextlib
import io
import re
import zipfile
from pathlib import PurePath

from ..errors import LampeError

# what each kind is called, and the libraries that read it: of the extra "documents"
NAMES = {"pdf": "PDF", "docx": "DOCX", "odt": "ODT", "epub": "EPUB", "html": "HTML"}
LIBRARIES = {
    "pdf": ("pypdfium2",), "docx": ("mammoth", "markdownify", "defusedxml"),
    "odt": ("odfdo", "defusedxml"), "epub": ("markdownify", "defusedxml"), "html": ("markdownify",),
}
ENDINGS = {".pdf": "pdf", ".docx": "docx", ".docm": "docx", ".odt": "odt", ".ott": "odt",
           ".epub": "epub", ".html": "html", ".htm": "html", ".xhtml": "html"}

MIMETYPES = {
    b"application/epub+zip": "epub",
    b"application/vnd.oasis.opendocument.text": "odt",
    b"application/vnd.oasis.opendocument.text-template": "odt",
}
PICTURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8")
MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16",
         b"\xfe\xff": "utf-16"}  # of the byte order, the longer ones first
# a comment ends at the first "-->": else many of them would be divided in all ways that there are
HTML = re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--(?:(?!-->).)*-->\s*)*"
                  rb"<(!doctype\s+html|html)\b",
                  re.IGNORECASE | re.DOTALL)
BEGIN = 4096  # bytes at the start that tell a kind


def kind_of(data: bytes, name: str) -> str:
    """"pdf", "docx", "odt", "epub", "html" or "text"; LampeError for one that nobody here reads.

    name  as it is to be shown; what it ends in counts where the bytes say nothing
    """
    ending = ENDINGS.get(PurePath(name).suffix.lower(), "text")
    head = data[:BEGIN]
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return _archive(data, name, ending)
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        raise LampeError(f"{name} is a Word file of the old kind, or one with a password; save it "
                         "as .docx, without a password")
    if head.startswith(b"{\\rtf"):
        raise LampeError(f"{name} is RTF; save it as .docx, .odt or plain text first")
    if head.startswith(PICTURES):
        raise LampeError(f"{name} is a picture; make text of it first (tesseract)")
    if HTML.match(head):
        return "html"
    return ending if ending == "html" or not is_text(head) else "text"


def is_text(head: bytes) -> bool:
    """Whether the begin of a file looks like text of an encoding that is read here."""
    if encoding_of(head) is not None:
        return True
    with contextlib.suppress(UnicodeDecodeError):
        # which takes a character that is cut off at the end
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(head)
    replaced = head.decode("utf-8", "replace").count("\ufffd")
    return b"\0" not in head and replaced * 10 <= len(head)


def encoding_of(data: bytes) -> str | None:
    """UTF-16 or UTF-32 where its mark begins the text; None: it says nothing."""
    return next((name for mark, name in MARKS.items() if data.startswith(mark)), None)


def _archive(data: bytes, name: str, ending: str) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 256:
                kind = MIMETYPES.get(archive.read("mimetype").strip())
                if kind is not None:
                    return kind
            if "word/document.xml" in names:
                return "docx"
            if "META-INF/container.xml" in names:
                return "epub"
    except Exception:  # as many kinds as there are ways to be damaged: the reader says more
        if ending != "text":
            return ending
        raise LampeError(f"{name} is a damaged archive; give the document itself") from None
    if "xl/workbook.xml" in names or "ppt/presentation.xml" in names or "content.xml" in names:
        raise LampeError(f"{name} is a spreadsheet or a presentation; export it as PDF or text")
    if ending in ("docx", "odt", "epub"):
        return ending
    raise LampeError(f"{name} is an archive; unpack it and give the documents")
