"""What MLflow's tools get beside a package, and what they call."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from andon.core.entities import ModelVersion
from andon.core.errors import Corrupt, Invalid
from andon.core.ids import ActorId, ModelVersionId, RunId
from andon.core.signature import Field, Signature
from andon.registry.clients import files_of
from andon.registry.packaging import Package, build_package, infer_signature, mlmodel
from andon.registry.packaging.golden import Golden, read_golden
from andon.registry.packaging.mlmodel import _load_pyfunc
from andon.store.blobs import LocalBlobs
from tests.registry.packaging.models import expressions, flight_booster, flights, train

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def version(package: Package) -> ModelVersion:
    return ModelVersion(
        id=ModelVersionId("mv_" + "0" * 32), model="flights", number=3, digest=package.digest, state="eligible",
        actor=ActorId("act_1"), created_at=NOW, run=RunId("1" * 32),
    )  # fmt: skip


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def package(blobs: LocalBlobs) -> Package:
    rows = flights()
    return build_package(
        blobs, expressions=expressions(), booster_text=flight_booster().model_to_string(),
        raw_schema=infer_signature(rows, expressions()), profile_bytes=b"{}", golden_rows=rows,
    )  # fmt: skip


def download(blobs: LocalBlobs, package: Package, folder: Path) -> Path:
    """The files as a client has them after it loaded the version."""
    folder.mkdir()
    for path, file in files_of(blobs, version(package)).items():
        data = blobs.get(file.digest) if file.digest else file.data
        assert data is not None
        assert len(data) == file.size_bytes
        (folder / path).write_bytes(data)
    return folder


def golden(folder: Path) -> tuple[dict[str, list[Any]], Golden]:
    found = read_golden((folder / "golden.json").read_bytes(), "golden.json")
    return {name: [row[name] for row in found.rows] for name in found.rows[0]}, found


def test_the_mlmodel_names_loader_version_run_and_columns(
    blobs: LocalBlobs, package: Package, tmp_path: Path
) -> None:
    folder = download(blobs, package, tmp_path / "model")

    said = json.loads((folder / "MLmodel").read_text())

    assert said["flavors"] == {"python_function": {"loader_module": "andon.registry.packaging.mlmodel"}}
    assert said["metadata"]["andon"] == {"digest": package.digest, "model": "flights", "version": 3}
    assert (said["run_id"], said["model_uuid"]) == ("1" * 32, "0" * 32)
    assert json.loads(said["signature"]["inputs"]) == [
        {"name": "distance", "type": "long"}, {"name": "wind", "type": "double"},
        {"name": "carrier", "type": "string"}, {"name": "heavy", "type": "boolean"},
    ]  # fmt: skip
    assert (folder / "requirements.txt").read_text() == f"andon[lightgbm]\npolars=={pl.__version__}\n"
    assert {path.name for path in folder.iterdir()} == {
        "MLmodel",
        "requirements.txt",
        "manifest.json",
        *package.files,
    }


def test_the_digest_of_a_package_does_not_know_of_its_mlmodel(blobs: LocalBlobs, package: Package) -> None:
    again = files_of(blobs, version(package))

    assert "MLmodel" not in package.files
    assert again["manifest.json"].digest == package.digest


def test_golden_rows_get_their_outputs_bit_for_bit(
    blobs: LocalBlobs, package: Package, tmp_path: Path
) -> None:
    folder = download(blobs, package, tmp_path / "model")
    rows, wanted = golden(folder)

    answers = _load_pyfunc(str(folder)).predict(rows)

    assert [value.hex() for value in answers.tolist()] == [value.hex() for value in wanted.outputs.tolist()]
    assert None in rows["wind"]


def test_threads_may_share_a_loaded_model(blobs: LocalBlobs, package: Package, tmp_path: Path) -> None:
    folder = download(blobs, package, tmp_path / "model")
    rows, wanted = golden(folder)
    model, seen = _load_pyfunc(str(folder)), []

    def work() -> None:
        seen.extend(bool(np.array_equal(model.predict(rows), wanted.outputs)) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [True] * 160


@pytest.mark.capability("E10")
@pytest.mark.parametrize(
    "name", ["model.txt", "features.json", "golden.json", "manifest.json", "profile.json"]
)
def test_a_changed_file_is_not_loaded(blobs: LocalBlobs, package: Package, tmp_path: Path, name: str) -> None:
    folder = download(blobs, package, tmp_path / "model")
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])

    with pytest.raises(Corrupt, match=name):
        _load_pyfunc(str(folder))


def test_another_package_under_the_same_mlmodel_is_not_loaded(
    blobs: LocalBlobs, package: Package, tmp_path: Path
) -> None:
    rows = flights(seed=9)
    other = build_package(
        blobs, expressions=expressions(), booster_text=flight_booster(rows).model_to_string(),
        raw_schema=infer_signature(rows, expressions()), profile_bytes=b"{}", golden_rows=rows,
    )  # fmt: skip
    folder, theirs = download(blobs, package, tmp_path / "model"), download(blobs, other, tmp_path / "other")
    (theirs / "MLmodel").write_bytes((folder / "MLmodel").read_bytes())

    with pytest.raises(Corrupt, match="does not match"):
        _load_pyfunc(str(theirs))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("distance", [1.5], "'1.5' in column 'distance' is no integer"),
        ("distance", [None], "has no value in row 0"),
        ("distance", [True], "is no integer"),
        ("distance", [2.0**60], "is no integer"),
        ("wind", ["calm"], "'calm' in column 'wind' is no number"),
        ("carrier", [7], "is no string"),
        ("heavy", [1], "is no boolean"),
        ("heavy", None, "there is no column 'heavy'"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_turned_into_something_else(
    blobs: LocalBlobs, package: Package, tmp_path: Path, column: str, values: list[Any] | None, said: str
) -> None:
    model = _load_pyfunc(str(download(blobs, package, tmp_path / "model")))
    row: dict[str, Any] = {"distance": [100], "wind": [float("nan")], "carrier": ["UA"], "heavy": [True]}
    whole = model.predict({**row, "distance": [100.0]})
    if values is None:
        del row[column]
    else:
        row[column] = values

    with pytest.raises(Invalid, match=said):
        model.predict(row)
    assert 0 < whole[0] < 1


def test_plain_columns_of_numbers_have_lightgbms_own_flavor(blobs: LocalBlobs, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = pl.DataFrame({"age": rng.normal(size=300), "income": rng.normal(size=300)})
    label = (rows["age"].to_numpy() > 0).astype(np.float64)
    plain = [pl.col("age"), pl.col("income")]
    package = build_package(
        blobs, expressions=plain, booster_text=train(rows.to_numpy(), label, names=rows.columns).model_to_string(),
        raw_schema=infer_signature(rows, plain), profile_bytes=b"{}", golden_rows=rows,
    )  # fmt: skip

    said = json.loads((download(blobs, package, tmp_path / "model") / "MLmodel").read_text())

    assert said["flavors"]["lightgbm"] == {"data": "model.txt", "model_class": "lightgbm.basic.Booster"}


def test_a_table_with_missing_integers_has_no_schema_that_would_change_them(
    blobs: LocalBlobs, package: Package
) -> None:
    fields = (Field(name="n", kind="integer", nullable=True),)
    signature = blobs.put(msgspec.json.encode(Signature(inputs=fields, features=())))
    manifest = msgspec.structs.replace(package.manifest, files={**package.files, "signature.json": signature})

    said = json.loads(mlmodel.files(blobs, version(package), manifest)["MLmodel"])

    assert "signature" not in said
