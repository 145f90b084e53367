"""One spelling for one thing: values with commas between them, files one option each.

Spellings of earlier releases still work, unlisted, with a sentence on standard error.
"""

from __future__ import annotations

from typing import Any

import click

from .console import say

USED = "lampe_gguf.old_spellings"  # in a context's meta: those that were used


class Respelled(click.Command):
    """A command some of whose options were spelled otherwise.

    old  old option -> new one; where the old one came several times, the new one has a list
    """

    def __init__(self, *arguments: Any, old: dict[str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.old = old

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[USED] = frozenset()
        for old, new in self.old.items():
            args = self._respell(ctx, args, old, new)
        return super().parse_args(ctx, args)

    def _respell(self, ctx: click.Context, args: list[str], old: str, new: str) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        kept: list[str] = []
        values: list[str] = []
        at = first = 0
        while at < end:
            name, equals, value = args[at].partition("=")
            if name != old:
                kept.append(args[at])
            elif not equals and at + 1 >= end:
                kept.append(new)  # its value is missing, which the parser says
            else:
                first = first if values else len(kept)
                values.append(value if equals else args[at + 1])
                at += not equals
            at += 1
        if not values:
            return [*kept, *args[end:]]
        if any(each.partition("=")[0] == new for each in kept):
            raise click.UsageError(f"{old} is {new} by its old name; give {new} alone", ctx)
        given = ",".join(values)
        say(f"{old} is spelled {new} now: {new} {given}")
        ctx.meta[USED] |= {old}
        return [*kept[:first], new, given, *kept[first:], *args[end:]]
