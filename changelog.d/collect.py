"""Gather the fragments of changelog.d/ into CHANGELOG.md as one release: `make changelog VERSION=0.2.0`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parent
LOG = FOLDER.parent / "CHANGELOG.md"
MARK = "<!-- releases -->\n"
KINDS = ("added", "changed", "fixed")


def release(version: str, day: str, log: Path = LOG, folder: Path = FOLDER) -> None:
    """Write the section of a release under the mark and remove the fragments it was made of."""
    fragments = sorted(folder.glob("*.md"))
    if not fragments:
        raise SystemExit("no fragments in changelog.d: there is nothing to release")
    section = f"\n## {version} - {day}\n"
    for kind in KINDS:
        lines = [" ".join(path.read_text().split()) for path in fragments if path.suffixes[-2] == f".{kind}"]
        if lines:
            section += f"\n### {kind.capitalize()}\n\n" + "".join(f"- {line}\n" for line in lines)
    before, after = log.read_text().split(MARK)
    log.write_text(before + MARK + section + after)
    for path in fragments:
        path.unlink()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("say the version: make changelog VERSION=0.2.0")
    release(sys.argv[1], datetime.now(UTC).date().isoformat())
    print(f"CHANGELOG.md: release {sys.argv[1]}")
