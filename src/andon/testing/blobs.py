"""What every `Blobs` must do. Subclass it in a test module and give the fixture `blobs`:

    class TestMyBlobs(BlobsConformance):
        @pytest.fixture
        def blobs(self, tmp_path): ...

A back end whose files can be damaged in a test also overrides `damage`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from andon.core.canonical import Digest, digest_bytes
from andon.core.errors import Corrupt, Invalid, NotFound
from andon.store.ports import Blobs

MEBIBYTE = 2**20
ABSENT = digest_bytes(b"never stored")
FOREIGN = [
    "",
    "abc",
    "sha256:",
    "sha256:../../etc/passwd",
    "sha256:" + "A" * 64,
    "sha256:" + "0" * 64 + "\n",
    "md5:" + "0" * 64,
]


class BlobsConformance:
    """The contract of `andon.store.ports.Blobs`."""

    def damage(self, blobs: Blobs, digest: Digest, data: bytes) -> str | None:
        """Put other bytes where those of a digest are stored, and say what the error must name; None: cannot be done."""
        return None

    @pytest.mark.parametrize("data", [b"", b"a", b"\0" * 5, bytes(range(256)) * 9000])
    def test_bytes_come_back(self, blobs: Blobs, data: bytes) -> None:
        digest = blobs.put(data)

        assert digest == digest_bytes(data)
        assert blobs.get(digest) == data
        assert b"".join(blobs.chunks(digest)) == data
        assert Path(blobs.path(digest)).read_bytes() == data
        assert blobs.size(digest) == len(data)
        assert blobs.has(digest)

    def test_a_stream_is_stored_like_its_bytes(self, blobs: Blobs) -> None:
        chunks = [b"x" * MEBIBYTE, b"", b"y" * (MEBIBYTE // 2), b"z"]

        digest = blobs.put(iter(chunks))

        assert digest == blobs.put(b"".join(chunks))
        assert b"".join(blobs.chunks(digest)) == b"".join(chunks)

    def test_storing_again_changes_nothing(self, blobs: Blobs) -> None:
        first = blobs.put(b"same")

        assert blobs.put(b"same") == first
        assert blobs.put(iter([b"sa", b"me"])) == first
        assert list(blobs.digests()) == [first]

    def test_a_stream_that_fails_stores_nothing(self, blobs: Blobs) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise RuntimeError("the source went away")

        with pytest.raises(RuntimeError, match="went away"):
            blobs.put(broken())

        assert list(blobs.digests()) == []

    def test_what_is_not_there_is_said(self, blobs: Blobs) -> None:
        assert not blobs.has(ABSENT)
        for verb in (blobs.get, blobs.size, blobs.path, blobs.chunks):
            with pytest.raises(NotFound, match=ABSENT):
                verb(ABSENT)

    @pytest.mark.parametrize("text", FOREIGN)
    def test_only_a_digest_is_an_address(self, blobs: Blobs, text: str) -> None:
        verbs: list[Any] = [
            blobs.get,
            blobs.has,
            blobs.size,
            blobs.path,
            blobs.remove,
            lambda d: list(blobs.chunks(d)),
        ]
        for verb in verbs:
            with pytest.raises(Invalid):
                verb(text)

    def test_removing_twice_changes_nothing(self, blobs: Blobs) -> None:
        gone, kept = blobs.put(b"gone"), blobs.put(b"kept")

        blobs.remove(gone)
        blobs.remove(gone)

        assert list(blobs.digests()) == [kept]
        assert blobs.put(b"gone") == gone
        assert blobs.get(gone) == b"gone"

    def test_all_digests_are_listed(self, blobs: Blobs) -> None:
        stored = {blobs.put(str(number).encode()) for number in range(40)}

        assert sorted(blobs.digests()) == sorted(stored)

    def test_damaged_bytes_are_never_given_out(self, blobs: Blobs) -> None:
        data = bytes(3 * MEBIBYTE)
        for wrong in (b"\x01" + data[1:], data[:-1], b"", data + b"\0"):
            digest = blobs.put(data)
            name = self.damage(blobs, digest, wrong)
            if name is None:
                return
            for verb in (blobs.get, blobs.path, lambda d: list(blobs.chunks(d))):
                with pytest.raises(Corrupt) as caught:
                    verb(digest)
                assert name in str(caught.value)
            blobs.remove(digest)

    def test_many_threads_store_the_same(self, blobs: Blobs) -> None:
        data, found = [bytes([number]) * 70_000 for number in range(6)], []
        start = threading.Barrier(8)

        def work() -> None:
            start.wait(30)
            found.append([blobs.put(item) for item in data])

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert found == [[digest_bytes(item) for item in data]] * 8
        assert [blobs.get(digest) for digest in found[0]] == data
