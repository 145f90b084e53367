"""The patched backend's own sources: what several of them need is written once."""

from __future__ import annotations

import re

import pytest
from patched.places import PATCHES
from patched.series import overlay_files

SOURCES = {
    path: data.decode() for path, data in overlay_files(PATCHES).items()
    if path.endswith((".c", ".cpp", ".h", ".cu", ".cuh"))
}


@pytest.mark.parametrize("what, where", [
    (r"enum lampe_region \{", "ggml-lampe-impl.h"),
    # floor(pos*num/den)
    (r"\bpos\w*\*(?:\w+\.)?num/|\bs1\*(?:\w+\.)?num/", "ggml-lampe.h"),
    # exp(sink - max) in a sum
    (r"sum\*ms \+ expf\(sink", "ggml-lampe-impl.h"),
    # the position of a query in the middle and in the tail
    (r"\+ \w+\[GGML_LAMPE_PLAN_MIDDLE_SHIFT\]", "ggml-lampe-impl.h"),
    (r"- \w+\[GGML_LAMPE_PLAN_TAIL_SHIFT\]", "ggml-lampe-impl.h"),
    # the region of a distance, the regions of several
    (r"\bd(?:istance)? <= (?:s1|\w*local_window)\b", "ggml-lampe-impl.h"),
    (r"\bd_min <= (?:s1|\w*local_window)\b", "ggml-lampe-impl.h"),
    # the operator's parameters
    (r"ggml_get_op_params_\w+\(dst, 2\)", "ggml-lampe-impl.h"),
])
def test_what_is_shared_is_written_once(what: str, where: str) -> None:
    found = [path.rpartition("/")[2] for path, text in SOURCES.items()
             for line in text.splitlines() if re.search(what, line.partition("//")[0])]
    assert found == [where]


def test_the_page_names_every_file_of_the_fast_path_and_no_other() -> None:
    page = "".join(path.read_text(encoding="utf-8") for path in PATCHES.glob("*.md"))
    named = set(re.findall(r"[\w-]*lampe[\w-]*\.(?:cpp|cuh|cu|c|h)\b", page))
    files = {path.rpartition("/")[2] for path in SOURCES}
    cpu = {path.rpartition("/")[2] for path in SOURCES if "/ggml-cpu/" in path}
    assert named <= files
    assert cpu <= named
