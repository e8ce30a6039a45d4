"""A package is named by its content, installs whole or not at all, and proves on real rows that it answers as when built."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from andon.core.canonical import digest_bytes, hex_part
from andon.core.errors import Corrupt, Invalid, NotFound
from andon.core.signature import Signature
from andon.registry.packaging import LoadedModel, Package, build_package, infer_signature, install, load
from andon.registry.packaging.package import FILES, MANIFEST
from andon.store.blobs import LocalBlobs
from tests.registry.packaging.models import expressions, flight_booster, flights

ROWS = flights()
PROFILE = b'{"kind":"profile"}'
BOOSTER = flight_booster(ROWS)
TEXT = BOOSTER.model_to_string()


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


def build(blobs: LocalBlobs, **changes: Any) -> Package:
    made = changes.get("expressions", expressions())
    rows = changes.get("golden_rows", ROWS)
    settings: dict[str, Any] = {
        "expressions": made,
        "booster_text": TEXT,
        "raw_schema": infer_signature(rows, made) if "raw_schema" not in changes else changes["raw_schema"],
        "profile_bytes": PROFILE,
        "golden_rows": rows,
    }
    return build_package(blobs, **{**settings, **changes})


def installed(blobs: LocalBlobs, tmp_path: Path, **changes: Any) -> tuple[Package, Path]:
    package = build(blobs, **changes)
    return package, install(blobs, package.digest, tmp_path / "models")


def answers(model: LoadedModel) -> tuple[bytes, bytes]:
    features = model.features(ROWS)
    return features.tobytes(), model.predict(features).tobytes()


def test_a_loaded_package_answers_as_the_trained_model_bit_for_bit(blobs: LocalBlobs, tmp_path: Path) -> None:
    trained = ROWS.select(expression.cast(pl.Float64) for expression in expressions()).to_numpy(order="c")
    package, folder = installed(blobs, tmp_path)

    with load(folder) as model:
        features, outputs = answers(model)
        single = [model.predict_one(record) for record in ROWS.drop("late").iter_rows(named=True)]

    assert features == trained.tobytes()
    assert outputs == BOOSTER.predict(trained, num_threads=1).tobytes()
    assert np.array([output for _, output in single]).tobytes() == outputs
    assert (model.digest, model.profile) == (package.digest, PROFILE)
    assert model.signature == infer_signature(ROWS, expressions())


def test_the_same_content_is_the_same_package_and_any_change_another(blobs: LocalBlobs) -> None:
    digest = build(blobs).digest

    assert build(blobs).digest == digest
    others = [
        build(blobs, profile_bytes=b"{}"),
        build(blobs, golden_rows=ROWS.tail(100)),
        build(
            blobs,
            booster_text=flight_booster(ROWS, seed=8, bagging_freq=1, bagging_fraction=0.5).model_to_string(),
        ),
        build(blobs, expressions=[*expressions()[:1], pl.col("wind") * 1, *expressions()[2:]]),
    ]
    assert len({digest, *(package.digest for package in others)}) == 5


def test_the_manifest_is_canonical_and_names_every_file(blobs: LocalBlobs) -> None:
    package = build(blobs)

    data = blobs.get(package.digest)
    document = json.loads(data)
    assert digest_bytes(data) == package.digest
    assert document == {
        "format": "andon.model/1",
        "runtime": "lightgbm",
        "files": dict(package.files),
        "trees": package.manifest.trees,
    }
    assert data == json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert set(package.files) == set(FILES)
    assert all(digest_bytes(blobs.get(digest)) == digest for digest in package.files.values())
    assert blobs.get(package.files["model.txt"]).decode() == TEXT


def test_installing_again_uses_the_copy_and_leaves_nothing_behind(blobs: LocalBlobs, tmp_path: Path) -> None:
    package, folder = installed(blobs, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    again = install(blobs, package.digest, tmp_path / "models")

    assert again == folder == tmp_path / "models" / hex_part(package.digest)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert set(before) == {*FILES, MANIFEST}
    assert [path.name for path in (tmp_path / "models").iterdir()] == [folder.name]


@pytest.mark.capability("E10")
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("harm", ["change", "cut", "delete"])
def test_a_damaged_copy_is_not_loaded_and_is_replaced_by_installing(
    blobs: LocalBlobs, tmp_path: Path, name: str, harm: str
) -> None:
    package, folder = installed(blobs, tmp_path)
    whole = (folder / name).read_bytes()
    damage(folder / name, harm)

    with pytest.raises(Corrupt, match=re.escape(str(folder / name))):
        load(folder)

    assert install(blobs, package.digest, tmp_path / "models") == folder
    assert (folder / name).read_bytes() == whole
    load(folder).close()
    assert [path.name for path in (tmp_path / "models").iterdir()] == [folder.name]


def damage(path: Path, harm: str) -> None:
    data = bytearray(path.read_bytes())
    if harm == "delete":
        path.unlink()
        return
    if harm == "cut":
        del data[-1]
    else:
        data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", FILES)
def test_a_corrupt_or_missing_blob_is_named_and_nothing_is_installed(
    blobs: LocalBlobs, tmp_path: Path, name: str
) -> None:
    package = build(blobs)
    digest = package.manifest.files[name]
    (stored,) = (tmp_path / "blobs").rglob(hex_part(digest)[2:])
    stored.chmod(0o600)
    stored.write_bytes(stored.read_bytes()[:-1] + b"~")

    with pytest.raises(Corrupt, match=hex_part(digest)[2:]):
        install(LocalBlobs(tmp_path / "blobs"), package.digest, tmp_path / "models")

    stored.unlink()
    with pytest.raises(NotFound):
        install(LocalBlobs(tmp_path / "blobs"), package.digest, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_many_who_install_at_once_end_with_one_whole_copy(blobs: LocalBlobs, tmp_path: Path) -> None:
    package, folder = installed(blobs, tmp_path)

    for harm in ("none", "change", "delete"):
        if harm != "none":
            damage(folder / "model.txt", harm)
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda _: install(blobs, package.digest, tmp_path / "models"), range(24)))
        assert set(done) == {folder}
        load(folder).close()
        assert [path.name for path in (tmp_path / "models").iterdir()] == [folder.name]


def test_a_folder_that_holds_another_package_is_refused(blobs: LocalBlobs, tmp_path: Path) -> None:
    package, folder = installed(blobs, tmp_path)
    other = build(blobs, profile_bytes=b"{}")
    elsewhere = folder.rename(tmp_path / "models" / hex_part(other.digest))

    with pytest.raises(Corrupt, match="does not match"):
        load(elsewhere)
    with pytest.raises(Corrupt, match="does not match"):
        load(elsewhere, other.digest)

    load(elsewhere, package.digest).close()


def rebuilt(folder: Path, name: str, data: bytes) -> Path:
    """The folder with one file changed and a manifest that knows it: what only the golden rows can find."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"][name] = digest_bytes(data)
    (folder / MANIFEST).write_bytes(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode())
    return folder.rename(folder.parent / "changed")


def test_answers_that_are_not_those_of_the_build_are_refused_by_row_and_feature(
    blobs: LocalBlobs, tmp_path: Path
) -> None:
    package, folder = installed(blobs, tmp_path)
    golden = json.loads(blobs.get(package.files["golden.json"]))
    golden["features"][5][2] = (float.fromhex(golden["features"][5][2]) * (1 + 2**-52)).hex()

    with pytest.raises(Corrupt, match=r"the feature 'wind_z' of golden row 5 is .* in a batch and was"):
        load(rebuilt(folder, "golden.json", json.dumps(golden).encode()))


def test_other_trees_are_found_by_the_golden_outputs(blobs: LocalBlobs, tmp_path: Path) -> None:
    _, folder = installed(blobs, tmp_path)
    other = flight_booster(ROWS, learning_rate=0.11).model_to_string()

    with pytest.raises(Corrupt, match=r"the output of golden row 0 is .* and was"):
        load(rebuilt(folder, "model.txt", other.encode()))


def test_other_expressions_are_found_by_the_golden_features(blobs: LocalBlobs, tmp_path: Path) -> None:
    _, folder = installed(blobs, tmp_path)
    changed = [*expressions()[:1], pl.col("wind") + 1, *expressions()[2:]]
    other = build(blobs, expressions=changed)

    with pytest.raises(Corrupt, match=r"the feature 'wind' of golden row 0"):
        load(rebuilt(folder, "features.json", blobs.get(other.files["features.json"])))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("golden.json", b'{"rows":[],"features":[],"outputs":[]}'),
        ("golden.json", b"[]"),
        ("signature.json", b'{"inputs":3}'),
        ("features.json", b'{"engine":"polars 1","expressions":[{"text":"","tree":"AAAA"}]}'),
        ("features.json", b'{"engine":"polars 1","expressions":[]}'),
        ("model.txt", b"tree\nobjective=multiclass num_class:3\n"),
    ],
)
def test_files_that_make_no_model_are_corrupt(
    blobs: LocalBlobs, tmp_path: Path, name: str, data: bytes
) -> None:
    _, folder = installed(blobs, tmp_path)

    with pytest.raises(Corrupt):
        load(rebuilt(folder, name, data))


@pytest.mark.parametrize(
    "manifest",
    [
        b"{}",
        b'{"format":"andon.model/2","files":{},"runtime":"lightgbm","trees":"sha256:0"}',
        b'{"files":{"../../evil":"sha256:0"},"format":"andon.model/1","runtime":"lightgbm","trees":"sha256:0"}',
        b"not json",
    ],
)
def test_a_manifest_of_something_else_is_refused(blobs: LocalBlobs, tmp_path: Path, manifest: bytes) -> None:
    with pytest.raises(Corrupt, match="package"):
        install(blobs, blobs.put(manifest), tmp_path / "models")

    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expressions": [*expressions()[:5], pl.col("distance").mean().alias("heavy_distance")]}, "uses Agg"),
        ({"expressions": expressions()[:5]}, "trained on 6 features"),
        ({"expressions": [*expressions()[1:], expressions()[0]]}, "in that order"),
        ({"golden_rows": ROWS.head(15)}, "15 golden rows"),
        ({"golden_rows": ROWS.with_columns(wind=float("nan"))}, "0 golden rows that a request could bring"),
        ({"booster_text": "tree\nobjective=multiclass\n"}, "'multiclass'"),
        (
            {"raw_schema": msgspec.structs.replace(infer_signature(ROWS, expressions()), output="value")},
            "give a probability and the signature says value",
        ),
        (
            {"raw_schema": infer_signature(ROWS.filter(pl.col("wind").is_not_null()), expressions())},
            "'wind' is null in a golden row",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_when_it_is_packaged(
    blobs: LocalBlobs, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(Invalid, match=said):
        build(blobs, **changes)

    assert list(blobs.digests()) == []


def test_training_in_narrower_numbers_than_a_request_brings_is_refused(blobs: LocalBlobs) -> None:
    narrow = ROWS.with_columns(wind=pl.col("wind").cast(pl.Float32))
    made = [pl.col("distance"), (pl.col("wind") / 3).alias("third")]
    trained = narrow.select(expression.cast(pl.Float64) for expression in made)
    text = flight_like(trained)

    with pytest.raises(
        Invalid, match=r"the feature 'third' of row \d+ is .* in training and .* in a request"
    ):
        build(blobs, expressions=made, booster_text=text, golden_rows=narrow)

    widened = [pl.col("distance"), (pl.col("wind").cast(pl.Float32).cast(pl.Float64) / 3).alias("third")]
    build(blobs, expressions=widened, booster_text=text, golden_rows=narrow)


def flight_like(features: pl.DataFrame) -> str:
    from tests.registry.packaging.models import train

    label = ROWS["late"].to_numpy().astype(np.float64)
    return train(features.to_numpy(), label, names=features.columns).model_to_string()


def test_rows_that_no_request_can_bring_are_left_out_of_the_proof(blobs: LocalBlobs, tmp_path: Path) -> None:
    strange = pl.concat([ROWS.head(3).with_columns(wind=float("inf")), ROWS])

    package, folder = installed(
        blobs, tmp_path, golden_rows=strange, raw_schema=infer_signature(ROWS, expressions())
    )

    rows = json.loads(blobs.get(package.files["golden.json"]))["rows"]
    assert len(rows) == 64
    assert rows == ROWS.select("distance", "wind", "carrier", "heavy").head(64).to_dicts()
    load(folder).close()


def test_loading_imports_no_database_and_no_training_library(blobs: LocalBlobs, tmp_path: Path) -> None:
    package = build(blobs)
    program = (
        "import sys; from pathlib import Path\n"
        "from andon.registry.packaging import install, load\n"
        "from andon.store.blobs import LocalBlobs\n"
        "model = load(install(LocalBlobs(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3])))\n"
        "print(model.predict_one({'distance': 300, 'wind': 12.5, 'carrier': 'UA', 'heavy': True})[1])\n"
        "bad = ('lightgbm', 'scipy', 'pandas', 'sklearn', 'sqlalchemy', 'sqlite3', 'starlette', 'cloudpickle')\n"
        "print([name for name in bad if name in sys.modules])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "blobs"), package.digest, str(tmp_path / "models")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    answer, heavy = done.stdout.splitlines()
    assert 0 < float(answer) < 1
    assert heavy == "[]"


def test_a_signature_survives_the_package(blobs: LocalBlobs) -> None:
    package = build(blobs)

    assert msgspec.json.decode(blobs.get(package.files["signature.json"]), type=Signature) == infer_signature(
        ROWS, expressions()
    )
