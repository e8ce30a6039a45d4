"""What others wrote and the pages ship is what was pinned, with its licence, and nothing else is there."""

from __future__ import annotations

import pytest

from andon.core.errors import Corrupt
from andon.web.ui.vendor import TARGET, check, packages


def test_every_file_has_the_bytes_that_were_pinned() -> None:
    for package in packages():
        for path in package.files:
            check(package, path, (package.folder / path.rsplit("/", 1)[-1]).read_bytes())


def test_every_package_comes_with_its_licence() -> None:
    for package in packages():
        assert "LICENSE" in package.files
        assert (package.folder / "LICENSE").read_text().strip()
        assert package.licence in {"0BSD", "MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC"}


def test_nothing_else_lies_with_them() -> None:
    listed = {package.folder / path.rsplit("/", 1)[-1] for package in packages() for path in package.files}

    assert {path for path in TARGET.rglob("*") if path.is_file()} == listed


def test_other_bytes_are_refused() -> None:
    package = packages()[0]

    with pytest.raises(Corrupt, match=r"LICENSE has the SHA-256"):
        check(package, "LICENSE", b"something else")
