"""A program of its own that reads one document: its text to standard output, a page a line.

What others made can be damaged or made to harm: it can take all memory, never end, or crash the
library that reads it. All of that ends this process only (see aside.py, which starts it).
"""

from __future__ import annotations

import contextlib
import io
import json
import posixpath
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from ..shown import shown, size
from .kinds import encoding_of

MOST_UNPACKED = 64 << 20  # bytes of text in an archive: a book of 10,000 pages has less
MOST_ARCHIVE = 1 << 30  # with the pictures
MOST_MEMORY = 4 << 30

# of what an office puts on paper beside the text
UNREAD_PARTS = {"comments": r"word/comments\.xml",
                "headers and footers": r"word/(header|footer)[0-9]*\.xml"}

Record = dict[str, Any]

ENTITIES = "defines XML entities, which no document has to; it is not read"
LEADERS = re.compile(r"(?: ?\.){6,}")  # dots of a table of contents


class Refused(Exception):
    """What is wrong with the document, to stand behind its name."""


def pdf(data: bytes) -> Iterator[Record]:
    """Each page; what has none of its text is counted."""
    import pypdfium2
    from pypdfium2 import raw

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == raw.FPDF_ERR_PASSWORD:
            raise Refused("is encrypted and needs a password; take it off first (qpdf --decrypt "
                          "--password=... in.pdf out.pdf)") from None
        raise
    n_pages = len(document)
    yield {"of": n_pages}
    empty = unread = pictures = n_characters = 0
    for number in range(n_pages):
        text = ""
        try:
            page = document[number]
            text = page.get_textpage().get_text_range()
            pictures += sum(1 for _ in page.get_objects([raw.FPDF_PAGEOBJ_IMAGE], max_depth=2))
        except pypdfium2.PdfiumError:
            unread += 1
        else:
            # a page on which nothing is drawn either is blank
            empty += not text.strip() and raw.FPDFPage_CountObjects(page) > 0
        text = LEADERS.sub(" ...", clean(text))
        n_characters += len(text)
        yield {"page": number + 1, "text": text}
    of = f"of {n_pages:,} pages"
    if unread == n_pages:
        raise Refused(f"is damaged: none {of} can be read")
    if not n_characters:
        raise Refused(f"has no text: none {of} (scanned?); OCR it first (ocrmypdf in.pdf out.pdf)")
    left_out = []
    if empty:
        left_out.append(f"{empty:,} {of} have no text (scanned?): OCR them first (ocrmypdf)")
    if unread:
        left_out.append(f"{unread:,} {of} are damaged")
    yield {"left_out": left_out + _pictures(pictures)}


def docx(data: bytes) -> Iterator[Record]:
    """Word's text as Markdown: headings, lists, tables and notes stay what they are."""
    import mammoth

    with opened(data) as archive:
        refuse_entities(archive)
        names = archive.namelist()
    pictures = mammoth.images.img_element(lambda image: {"src": "left out"})
    found = mammoth.convert_to_html(io.BytesIO(data), convert_image=pictures)
    text, n_pictures = markdown(found.value)
    yield {"text": text}
    left_out = [f"{what} are left out" for what, pattern in UNREAD_PARTS.items()
                if any(re.match(pattern, name) for name in names)]
    yield {"left_out": left_out + _pictures(n_pictures)}


def odt(data: bytes) -> Iterator[Record]:
    """OpenDocument's text as Markdown."""
    import odfdo

    with opened(data) as archive:
        refuse_entities(archive)
        if b"encryption-data" in archive.read("META-INF/manifest.xml"):
            raise Refused("is encrypted; save it without a password first")
        n_pictures = sum(name.startswith("Pictures/") for name in archive.namelist())
    document = odfdo.Document(io.BytesIO(data))
    yield {"text": clean(document.to_markdown())}
    yield {"left_out": _pictures(n_pictures)}


def epub(data: bytes) -> Iterator[Record]:
    """The chapters of a book in their order, as Markdown.

    The library for this (EbookLib) has a licence that would be everybody's; this is the part of it
    that is needed: which files of the archive are read, in which order.
    """
    from defusedxml.ElementTree import fromstring

    with opened(data) as archive:
        refuse_locked(archive)
        container = fromstring(archive.read("META-INF/container.xml"))
        path = next(each.get("full-path") for each in container.iter() if _is(each, "rootfile"))
        package = fromstring(archive.read(path))
        files = {each.get("id"): each.get("href") for each in package.iter() if _is(each, "item")}
        order = [files.get(each.get("idref")) for each in package.iter() if _is(each, "itemref")]
        if not order:
            raise Refused("is damaged: it names no chapters")
        yield {"of": len(order)}
        missing = n_pictures = 0
        folder = posixpath.dirname(path)
        for href in order:
            text = ""
            try:
                inside = posixpath.normpath(posixpath.join(folder, unquote(href or "")))
                chapter = archive.read(inside)
            except (KeyError, zipfile.BadZipFile):
                missing += 1
            else:
                text, count = markdown(decoded(chapter))
                n_pictures += count
            yield {"text": text}
    left_out = [f"{missing:,} of {len(order):,} chapters are damaged"] if missing else []
    yield {"left_out": left_out + _pictures(n_pictures)}


def html(data: bytes) -> Iterator[Record]:
    """A page as Markdown, scripts and styles left away."""
    text, n_pictures = markdown(decoded(data))
    yield {"text": text}
    yield {"left_out": _pictures(n_pictures)}


READERS: dict[str, Callable[[bytes], Iterator[Record]]] = {
    "pdf": pdf, "docx": docx, "odt": odt, "epub": epub, "html": html,
}


def decoded(data: bytes) -> str:
    """A page's text: UTF-8 where it is that, else of the encoding that its marks or itself name.

    Nothing is guessed, as what guesses depends on what else is installed.
    """
    from bs4.dammit import EncodingDetector

    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        named = encoding_of(data) or EncodingDetector.find_declared_encoding(data, is_html=True)
    try:
        return data.decode(named or "windows-1252", "replace")
    except LookupError:  # an encoding that there is not
        return data.decode("windows-1252", "replace")


def markdown(page: str) -> tuple[str, int]:
    """A page of HTML as Markdown, and how many pictures it shows."""
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    soup = BeautifulSoup(page, "html.parser")
    for each in soup(["script", "style", "template", "noscript"]):
        each.decompose()
    if soup.head is not None and soup.h1 is not None:  # else its title is the page's
        soup.head.decompose()
    pictures = soup(["img", "svg"])
    # nothing of the text is escaped: a model reads snake_case better than snake\_case
    converter = MarkdownConverter(
        heading_style="ATX", strip=["a", "img", "svg"], escape_asterisks=False,
        escape_underscores=False, escape_misc=False, table_infer_header=True,
    )
    return clean(converter.convert_soup(soup)), len(pictures)


def clean(text: str) -> str:
    """One kind of line ends, no more than one empty line, and nothing that prints nothing.

    U+FFFE is PDFium's mark of a word that a line's end divided.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub("\ufffe\n?|[\0\x02\u00ad]", "", text)
    text = re.sub(r"[^\S\n]+\n", "\n", text.replace("\f", "\n").replace("\u00a0", " "))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[zipfile.ZipFile]:
    """An archive, as far as it unpacks to what a document can have; zipfile reads no more."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        text = sum(each.file_size for each in members
                   if not each.filename.lower().endswith((".png", ".jpg", ".jpeg", ".gif", ".emf",
                                                          ".ttf", ".otf", ".wmf", ".tif", ".tiff")))
        if text > MOST_UNPACKED or sum(each.file_size for each in members) > MOST_ARCHIVE:
            raise Refused(f"unpacks to {size(text)} of text, more than a document has "
                          f"({size(MOST_UNPACKED)}); give a part of it as plain text")
        if any(each.flag_bits & 1 for each in members):
            raise Refused("is encrypted; save it without a password first")
        yield archive


def refuse_entities(archive: zipfile.ZipFile) -> None:
    """Office files define none: those that do mean harm, and their readers expand them."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    for name in archive.namelist():
        # an empty one is no XML to anybody
        if name.endswith((".xml", ".rels")) and archive.getinfo(name).file_size:
            with archive.open(name) as member:
                try:
                    next(iter(iterparse(member, ("start",), forbid_dtd=True)), None)
                except DefusedXmlException:
                    raise Refused(ENTITIES) from None


def refuse_locked(archive: zipfile.ZipFile) -> None:
    """A book whose chapters only its shop's program opens; fonts that are locked do not matter."""
    from defusedxml.ElementTree import fromstring

    if "META-INF/encryption.xml" not in archive.namelist():
        return
    locked = [str(each.get("URI")) for each in fromstring(archive.read("META-INF/encryption.xml"))
              .iter() if _is(each, "CipherReference")]
    if any(name.lower().endswith(("html", "htm", "xml")) for name in locked):
        raise Refused("is locked by its shop (DRM); only the shop's own program reads it")


def _is(element: Any, name: str) -> bool:
    return str(element.tag).rpartition("}")[2] == name


def _pictures(count: int) -> list[str]:
    if not count:
        return []
    return [f"{count:,} picture{'s are' if count > 1 else ' is'} left out"]


def bound_memory() -> None:
    """An error where the document takes too much, and not the whole machine's memory."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))


def main(kind: str) -> None:
    """Read standard input; a record in JSON on each line, the last one says how it ended."""
    bound_memory()
    n_characters = 0
    end: Record = {"end": True}
    try:
        for record in READERS[kind](sys.stdin.buffer.read()):
            n_characters += len(record.get("text", ""))
            if n_characters > MOST_UNPACKED:
                raise Refused(f"has more than {size(MOST_UNPACKED)} of text; give a part of it")
            print(json.dumps(record), flush=True)
    except Refused as error:
        end = {"error": str(error)}
    except MemoryError:
        end = {"error": f"takes more than {size(MOST_MEMORY)} of memory to read; give a part of "
                        "it, or save it as plain text"}
    except RecursionError:
        end = {"error": "is nested too deep to be read; save it as plain text"}
    except Exception as error:  # as the libraries have it
        end = {"error": f"is damaged ({shown(error, 80) or type(error).__name__})", "damaged": True}
        if type(error).__module__.startswith("defusedxml"):
            end = {"error": ENTITIES}
    print(json.dumps(end), flush=True)
