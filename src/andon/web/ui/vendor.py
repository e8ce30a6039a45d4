"""Fetch and check the files of others that the pages ship: `python -m andon.web.ui.vendor`, or `make vendor`.

`vendor.toml` names package, version and, for each file, the SHA-256 of its bytes; a file with other bytes is refused.
Only this command talks to a registry, through `npm pack`, and only when asked to.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

import msgspec

from andon.core.errors import AndonError, Corrupt, Unavailable

HERE = Path(__file__).parent
TARGET = HERE / "static" / "vendor"


class Package(msgspec.Struct, frozen=True):
    """A package of which some files are shipped. `files` maps a path in the package to the SHA-256 of its bytes."""

    name: str
    version: str
    licence: str
    files: dict[str, str]

    @property
    def folder(self) -> Path:
        return TARGET / f"{self.name}-{self.version}"


def packages() -> tuple[Package, ...]:
    """What `vendor.toml` lists."""
    document = tomllib.loads((HERE / "vendor.toml").read_text())
    return msgspec.convert(document["package"], tuple[Package, ...])


def check(package: Package, path: str, data: bytes) -> bytes:
    """The bytes of a file, when they are the pinned ones.

    Raises:
        Corrupt: they are not.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != package.files[path]:
        raise Corrupt(
            f"{package.name} {package.version}: {path} has the SHA-256 {found}",
            hint="vendor.toml pins another",
        )
    return data


def fetch(package: Package) -> None:
    """Bring the files of a package, all or none.

    Raises:
        Unavailable: npm is missing or cannot get the package.
        Corrupt: a file is not the pinned one.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(
                f"'{' '.join(command)}' failed: {error}", hint="npm is needed to fetch files, not to run"
            ) from None
        archive = next(Path(folder).glob("*.tgz"))
        with tarfile.open(archive) as tar:
            found = {path: check(package, path, _read(tar, path)) for path in package.files}
    package.folder.mkdir(parents=True, exist_ok=True)
    for path, data in found.items():
        (package.folder / Path(path).name).write_bytes(data)


def _read(tar: tarfile.TarFile, path: str) -> bytes:
    member = tar.extractfile(f"package/{path}")
    return b"" if member is None else member.read()


def main() -> int:
    """Fetch everything that is listed."""
    try:
        for package in packages():
            fetch(package)
            sys.stdout.write(f"{package.name} {package.version}: {len(package.files)} files\n")
    except AndonError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
