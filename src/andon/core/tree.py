"""A folder of files as one value: relative paths with the digests of their bytes, named by a digest of its own.

What a client logged as a model lies as single files that somebody may replace or delete; its tree says which bytes they
were. The canonical bytes are kept as a blob, so the digest of a tree is an address like any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from andon.core.canonical import Digest, canonical, digest_bytes, parse_digest
from andon.core.errors import Corrupt, TooLarge

FORMAT = "andon.tree/1"
MOST_FILES = 100_000


class Leaf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file: the digest of its bytes, and how many they are."""

    digest: Digest
    size_bytes: int


class Tree(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files by their path below the folder, such as `MLmodel` or `data/model.pkl`."""

    files: Mapping[str, Leaf]
    format: str = FORMAT

    @property
    def size_bytes(self) -> int:
        """How many bytes all files have."""
        return sum(leaf.size_bytes for leaf in self.files.values())

    def encode(self) -> bytes:
        """The canonical bytes: the same files give the same bytes, whatever their order was.

        Raises:
            TooLarge: there are more than 100,000 files.

        >>> tree = Tree(files={"a": Leaf(digest=digest_bytes(b"x"), size_bytes=1)})
        >>> decode_tree(tree.encode()) == tree
        True
        """
        if len(self.files) > MOST_FILES:
            raise TooLarge(
                f"there are more than {MOST_FILES:,} files in one folder", hint="pack them into an archive"
            )
        return canonical(msgspec.to_builtins(self))

    @property
    def digest(self) -> Digest:
        """The tree's name.

        >>> Tree(files={}).digest[:7]
        'sha256:'
        """
        return digest_bytes(self.encode())


def decode_tree(data: bytes) -> Tree:
    """The tree whose `encode` gave these bytes.

    Raises:
        Corrupt: they are not a tree.
    """
    try:
        tree = msgspec.json.decode(data, type=Tree)
        for leaf in tree.files.values():
            parse_digest(leaf.digest)
    except ValueError as error:
        raise Corrupt(f"this is not the manifest of a folder: {error}") from None
    if tree.format != FORMAT:
        raise Corrupt(f"the manifest has the format {tree.format[:40]!r}, which this Andon does not know")
    return tree
