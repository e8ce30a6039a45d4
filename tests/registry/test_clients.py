"""Sources of clients, and the files of versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from andon.core.canonical import digest_bytes
from andon.core.entities import ModelVersion
from andon.core.errors import Corrupt, Invalid, NotFound
from andon.core.tree import Leaf, Tree
from andon.registry.clients import (
    Elsewhere,
    InArtifacts,
    OfLoggedModel,
    OfRun,
    OfVersion,
    Placed,
    VersionFiles,
    read_source,
    register_placed,
)
from andon.registry.models import delete_version, ensure_model
from andon.store.blobs import LocalBlobs
from andon.store.ports import Transaction
from tests.registry.world import RegistryWorld


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("runs:/abc/model", OfRun("abc", "model")),
        ("runs:///abc//a/b/", OfRun("abc", "a/b")),
        ("models:/m-1", OfLoggedModel("m-1")),
        ("models:/churn of März/12", OfVersion("churn of März", "number", "12")),
        ("models:/churn/Staging", OfVersion("churn", "stage", "Staging")),
        ("models:/churn@champion", OfVersion("churn", "alias", "champion")),
        ("MODELS:/a@b@c", OfVersion("a@b", "alias", "c")),
        ("mlflow-artifacts:/1/abc/artifacts/my%20model", InArtifacts("1/abc/artifacts/my model")),
        ("S3://Bucket/x", Elsewhere("S3://Bucket/x")),
    ],
)
def test_a_source_is_read_once_into_one_meaning(text: str, means: object) -> None:
    assert read_source(text) == means


@given(
    st.text(alphabet="abc/.%25eE2fF5cC#;?\\:@ \x00mr-", max_size=40),
    st.sampled_from(["mlflow-artifacts:/", "runs:/", "models:/"]),
)
def test_no_source_has_a_meaning_that_leads_out_of_its_place(rest: str, scheme: str) -> None:
    try:
        found = read_source(scheme + rest)
    except Invalid:
        return
    parts = {
        OfRun: lambda: [found.run, *found.path.split("/")],  # type: ignore[union-attr]
        InArtifacts: lambda: found.path.split("/"),  # type: ignore[union-attr]
    }.get(type(found), lambda: ["plain"])()
    assert not {"", ".", ".."} & set(parts)
    assert not set("#;?\\%\x00") & set("".join(parts))


def held(world: RegistryWorld, blobs: LocalBlobs, files: dict[str, bytes]) -> ModelVersion:
    """A version of these files."""
    leaves = {path: Leaf(digest=blobs.put(data), size_bytes=len(data)) for path, data in files.items()}
    digest = blobs.put(Tree(files=leaves).encode())

    def work(tx: Transaction) -> ModelVersion:
        model = ensure_model(tx, "churn", world.ann, world.now())
        return register_placed(tx, model, Placed(source="runs:/a/b"), digest, actor=world.ann, at=world.now())

    return world.write(work)


def test_the_files_of_a_version_are_listed_as_folders_and_read_as_files(
    world: RegistryWorld, tmp_path: Path
) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    version = held(
        world, blobs, {"MLmodel": b"{}", "data/model.txt": b"tree", "data/more/a": b"", "data2": b"x"}
    )
    files, root = VersionFiles(world.store, blobs), f"registry/{version.id}"

    def names(path: str) -> list[tuple[str, bool]]:
        found = files.at(path)
        assert isinstance(found, list)
        return [(name, file is None) for name, file in found]

    assert names(root) == names(f"{root}/") == [("MLmodel", False), ("data", True), ("data2", False)]
    assert names(f"{root}/data") == [("model.txt", False), ("more", True)]
    found = files.at(f"{root}/data/model.txt")
    assert not isinstance(found, list)
    assert (found.size_bytes, found.digest) == (4, digest_bytes(b"tree"))
    for nowhere in (
        f"{root}/dat",
        f"{root}/data/model.txt/x",
        f"{root}/../{version.id}",
        "registry",
        "registry/",
        "other/x",
    ):
        with pytest.raises(NotFound):
            files.at(nowhere)


def test_what_was_deleted_or_is_not_held_has_no_files(world: RegistryWorld, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    version, files = held(world, blobs, {"a": b"1"}), VersionFiles(world.store, blobs)
    assert list(files.of(version.id)) == ["a"]

    world.do(delete_version, version)
    other = held(world, blobs, {"a": b"2"})
    world.write(lambda tx: tx.model_versions.change(replace(other, held=False)))

    for ident in (version.id, other.id, "mv_nothing"):
        with pytest.raises(NotFound):
            files.of(ident)


@pytest.mark.capability("E10")
def test_a_damaged_manifest_is_not_used(world: RegistryWorld, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    version = held(world, blobs, {"a": b"1"})
    path = Path(blobs.path(version.digest))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"b"'))

    with pytest.raises(Corrupt):
        VersionFiles(world.store, LocalBlobs(tmp_path / "blobs")).of(version.id)
