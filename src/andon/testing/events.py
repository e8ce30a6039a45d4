"""The page of events, docs/reference/events.md, written from `core.events.KINDS`.

Rewrite it with `python -m andon.testing.events docs/reference/events.md`; a test compares the two.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from andon.core.events import KINDS, VERSION

_INTRO = f"""# Events

Every change of state is one event in the ledger, written in the same transaction as the change. Events are numbered
from 1 without gaps, and each holds the hash of the one before. This page is written from `andon.core.events.KINDS`.

An event says its `kind`, its `actor`, its `subject`, when it happened (`at`, and `data_at` in the time of the data), its
`inputs` and `outputs`, and `facts`: words, whole numbers and booleans that go with it. Free text is kept apart, where it
can be erased; the event holds a salted hash of it (`note`). The bytes that are hashed are canonical JSON, version
{VERSION}, and stay as they are for ever.

Lineage follows from the event alone. An edge means "was needed for": the actor for the subject, each input for the
subject, the subject for each output.
"""


def page() -> str:
    """The page: one table for each noun, its kinds in the order of `KINDS`.

    >>> "| `run.sealed` |" in page()
    True
    """
    parts = [_INTRO]
    for noun, kinds in groupby(KINDS, key=lambda kind: kind.partition(".")[0]):
        lines = [f"| `{kind}` | {KINDS[kind]} |" for kind in kinds]
        parts.append(
            "\n".join(
                [
                    f"## {noun.replace('_', ' ').capitalize()}\n",
                    "| kind | says that |",
                    "|---|---|",
                    *lines,
                    "",
                ]
            )
        )
    return "\n".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
