"""Records of a JSONL file, one line at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ...conversation.documents import read_document
from ...errors import LampeError


def read_records(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, the record) of each line; LampeError for a line that is no JSON object."""
    document = read_document(name)
    for number, line in enumerate(document.text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"line {number} of {document.name}"
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise LampeError(f"{where} is not a JSON object; give a JSONL file, one record a line")
        yield where, record
