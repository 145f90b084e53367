"""Small documents of every kind, written by hand: what a reader says is checked against these."""

from __future__ import annotations

import base64
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence


def pdf(pages: Sequence[str], pictures: Sequence[int] = ()) -> bytes:
    """A PDF with a line of text for each line of a page; pages of `pictures` show one."""
    n = len(pages)
    kids = " ".join(f"{3 + 2 * at} 0 R" for at in range(n))
    last = 3 + 2 * n
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>",
               f"<< /Type /Pages /Count {n} /Kids [{kids}] >>".encode()]
    for at, text in enumerate(pages):
        lines = [line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
                 for line in text.split("\n") if line]
        drawn = "BT /F1 11 Tf 14 TL 60 780 Td " + " ".join(f"({line}) ' " for line in lines) + "ET"
        if not lines:
            drawn = ""
        if at in pictures:
            drawn += " q 100 0 0 100 60 300 cm /I1 Do Q"
        stream = drawn.encode("latin-1")
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {4 + 2 * at} 0 R "
            f"/Resources << /Font << /F1 {last} 0 R >> /XObject << /I1 {last + 1} 0 R >> >> >>"
            .encode(),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        ]
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    objects.append(b"<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray "
                   b"/BitsPerComponent 8 /Length 1 >>\nstream\n\x80\nendstream")
    out = b"%PDF-1.4\n"
    places = []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return (out + b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(places) + 1, table)
            + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
            % (len(places) + 1, len(out)))


def archive(members: Mapping[str, str | bytes]) -> bytes:
    """A zip of these; "mimetype" is stored as it is."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            how = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            made.writestr(name, content, how)
    return file.getvalue()


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
DOCUMENT = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"


def docx(body: str, before: str = "", more: Mapping[str, str | bytes] | None = None) -> bytes:
    """A Word file; `body` is of `paragraph`, `before` stands before the root."""
    return archive({
        "[Content_Types].xml":
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{RELATIONS}"><Relationship Id="r1" '
                       f'Type="{DOCUMENT}" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<?xml version="1.0"?>{before}<w:document xmlns:w="{WORD}"><w:body>'
                             f"{body}</w:body></w:document>",
        **(more or {}),
    })


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of a Word file."""
    given = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{given}<w:r><w:t>{text}</w:t></w:r></w:p>"


ODF = "urn:oasis:names:tc:opendocument:xmlns:"


def odt(body: str, before: str = "", manifest: str = "") -> bytes:
    """An OpenDocument text; `body` is of its content.xml."""
    spaces = (f'xmlns:office="{ODF}office:1.0" xmlns:text="{ODF}text:1.0" '
              f'xmlns:table="{ODF}table:1.0"')
    kind = "application/vnd.oasis.opendocument.text"
    rest = f'<office:document-styles {spaces} office:version="1.3"/>'
    return archive({
        "mimetype": kind,
        "META-INF/manifest.xml":
            f'<manifest:manifest xmlns:manifest="{ODF}manifest:1.0" manifest:version="1.3">'
            f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{kind}"/>'
            '<manifest:file-entry manifest:full-path="content.xml" '
            f'manifest:media-type="text/xml">{manifest}</manifest:file-entry></manifest:manifest>',
        "content.xml": f'<?xml version="1.0"?>{before}<office:document-content {spaces} '
                       f'office:version="1.3"><office:body><office:text>{body}</office:text>'
                       "</office:body></office:document-content>",
        "styles.xml": rest,
        "meta.xml": f'<office:document-meta {spaces} office:version="1.3"/>',
        "settings.xml": f'<office:document-settings {spaces} office:version="1.3"/>',
    })


def epub(chapters: Mapping[str, str], before: str = "", more: Mapping[str, str] | None = None
         ) -> bytes:
    """A book: chapters in XHTML by their file's name, in the order that they are read."""
    items = "".join(f'<item id="c{at}" href="{name.replace(" ", "%20")}" '
                    'media-type="application/xhtml+xml"/>' for at, name in enumerate(chapters))
    order = "".join(f'<itemref idref="c{at}"/>' for at in range(len(chapters)))
    return archive({
        "mimetype": "application/epub+zip",
        "META-INF/container.xml":
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">'
            '<rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
        "OEBPS/book.opf": f'<?xml version="1.0"?>{before}<package '
                          'xmlns="http://www.idpf.org/2007/opf" version="3.0"><manifest>'
                          f"{items}</manifest><spine>{order}</spine></package>",
        # in the other order: the book says which is the first
        **{f"OEBPS/{name}": text for name, text in reversed(list(chapters.items()))},
        **(more or {}),
    })


# a page of `pdf`, encrypted: it opens with the password "open sesame"
LOCKED_PDF = zlib.decompress(base64.b64decode(
    "eNqNUz1oFEEUJpVhsBTrUblG0N2ZndkfcqTIJWeC0Tvu/AmIxfy8vWy42z1nNyGxsxKENGJlayHYqJWdWIhgZWFjIQgq"
    "gmUqW2f3LpeDtXB3i53vvfe99743r9FdbV8ilz3U+P7j02dEsIszuYOaTeTcOBgDdlqiEMNsgJyuGECOqXXooeVlBKku"
    "HWktoPJDTivbTQtMkHM10Tm+g70yEN+dC/X+GVomMmBDJ5mca6ATsZLtWwrXvjziOGTUEtkMaWEdc8wmnj3Is12jbJEl"
    "Y9taJz8E8+Oina2O3AE1MWwQ7B8bJt+0MDZX2Cakg2Ibc17a88KAGKGfFxfPHS2+eX20dLjz7s+Xpx+czsLZR7+fHF5Y"
    "efzw3q8z1xe+GXPq5ejjs/e9B6c3n79YerX19fzbkn7KME3EawqUVSOnvyuL6liCVsIVkUPVj7MOwz0oEiXmyvVrLNMu"
    "54g2RpW0txNtm7GM65AMtqvxtLJhZvpjoazXKuwlCq4YcWBzJkXeBdPKRuMsLecRzsQgc1o06l0Fc/XcwtQOBnsnsdTy"
    "dDGjEYv8gEbW3E6GBRjs9AuRamE0cjq4GcWcaREwIX0dyUBFBLhQsYzjmGqpNNGeJ6Ig8ggwSkINfsApBaZJDDwgrp31"
    "Tdwkwo2pAE+6KohCn0rpRb6vVRwwErgh0FDGDDgwCHgoGPGZ69qzb7MIl7jh/K3YNxAj18rgzh7sc+5xHOMZRuxIK0t6"
    "gvmshhHq1TAa+DXMC0kNY7yOlVsxwwojkiGYSv9+ch/KyfWyzE57sicbq3aXmuArLSPpChWQUIXUVZJoHnmSKOUxEMv/"
    "42K3cC1V5mBc4OB4lfJCmKISKyQuajTWOm30F+sFObA="
))
