#!/usr/bin/env python3
"""Write the C++ header of LaMPE's metadata, made from the table in lampe_gguf/fields.py.

    .venv/bin/python tools/make_fields.py
"""

from __future__ import annotations

from arguments import run, tool
from patched.places import PATCHES

from lampe_gguf.method.fields import FIELDS, MAX_F64, Bound, Field

HEADER = PATCHES / "overlay" / "vendor" / "llama.cpp" / "src" / "llama-lampe-fields.h"

TOP = """\
// made by tools/make_fields.py of lampe-gguf from its table of fields: edit that one
#pragma once

#include <cfloat>
#include <cstdint>

{names}
// the metadata {arch}.rope.scaling.lampe.*, in the order that it has to be checked in:
// a range may depend on the fields before
// p: llama_lampe_params
//
//   U32 (name, required, min, max, zero)  whole number of any width; zero: 0 is allowed as well
//   F64 (name, required, min, max)        f32 or f64
//   NAME(name, required, ...)             a string, one of these; its index is kept
//   TEXT(name, required, n_max)           a string of at most n_max bytes, not kept
#define LLAMA_LAMPE_FIELDS(p, U32, F64, NAME, TEXT) \\
"""


def bound(end: Bound) -> str:
    """An end of a range in C++, computed in 64 bits."""
    if abs(end.constant) == MAX_F64:
        return "DBL_MAX" if end.constant > 0 else "-DBL_MAX"
    if not end.plus:
        return f"{end.constant}"
    text = "(int64_t) " + " + ".join(f"p.{name}" for name in end.plus)
    text += "".join(f" - p.{name}" for name in end.minus)
    sign = "-" if end.constant < 0 else "+"
    return text + (f" {sign} {abs(end.constant)}" if end.constant else "")


def zero(field: Field) -> str:
    """Where 0 is allowed beside the range, in C++."""
    if field.zero is None:
        return "false"
    other, values = field.zero
    names = next(each.names for each in FIELDS if each.name == other)
    numbers = [names.index(str(value)) if names else value for value in values]
    return " || ".join(f"p.{other} == {number}" for number in numbers)


def macro(field: Field) -> str:
    """What holds the names of a field."""
    return f"LLAMA_LAMPE_{field.name.upper()}_NAMES"


def line(field: Field) -> str:
    """One field."""
    what = [field.name, "true" if field.required else "false"]
    if field.kind == "name":
        what.append(macro(field))
    elif field.kind == "text":
        what.append(bound(field.most))
    else:
        what += [bound(field.least), bound(field.most)]
    if field.kind == "u32":
        what.append(zero(field))
    return f"    {field.kind.upper():<4}({', '.join(what)})"


def header() -> str:
    """The whole file."""
    names = "".join(
        f"#define {macro(field)} " + ", ".join(f'"{name}"' for name in field.names) + "\n"
        for field in FIELDS if field.names
    )
    return TOP.replace("{names}\n", names + "\n") + " \\\n".join(map(line, FIELDS)) + "\n"


@tool(__doc__)
def main() -> int:
    """Write it, where it says something else."""
    text = header()
    if not HEADER.exists() or HEADER.read_text(encoding="utf-8") != text:
        HEADER.write_text(text, encoding="utf-8")
        print(f"wrote {HEADER.name}")
    return 0


if __name__ == "__main__":
    run(main)
