"""The model package `andon.model/1`: a folder of plain files whose manifest is the model version's identity.

A package holds all that an answer needs (trees, feature expressions, signature), what its monitors compare with
(profile) and its own proof (golden rows): real rows with the features and outputs they must give, bit for bit, wherever
it is loaded. Loading it runs no code of anybody. The files are described in docs/reference/model-package.md.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import numpy as np
import polars as pl

from andon.core.canonical import Digest, canonical, digest_bytes, hex_part, parse_digest
from andon.core.errors import Corrupt, Invalid, Unavailable
from andon.core.signature import Signature
from andon.registry.packaging.expressions import decode_expression, encode_expression
from andon.registry.packaging.features import (
    FeatureFunction,
    Floats,
    Record,
    conform,
    differing,
    prove_row_local,
)
from andon.registry.packaging.golden import MAX_ROWS, Golden, make_golden, read_golden
from andon.registry.packaging.lightgbm import Booster, tree_digest
from andon.store.files import refusing_full
from andon.store.ports import Blobs

FORMAT = "andon.model/1"
RUNTIME = "lightgbm"
MANIFEST = "manifest.json"
FILES = ("features.json", "golden.json", "model.txt", "profile.json", "signature.json")
_T = TypeVar("_T")
_HEX = re.compile(r"[0-9a-f]{64}\Z")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a package consists of: file names with their digests, and the digest of the trees alone."""

    files: Mapping[str, Digest]
    trees: Digest
    format: str = FORMAT
    runtime: str = RUNTIME

    def encode(self) -> bytes:
        """The canonical bytes, whose digest is the model version's."""
        return canonical(msgspec.to_builtins(self))


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A package as it was built: `digest` is the manifest's, `files` the digests of the blobs by file name."""

    digest: Digest
    manifest: Manifest

    @property
    def files(self) -> Mapping[str, Digest]:
        return self.manifest.files


class _Expression(msgspec.Struct, frozen=True, kw_only=True):
    """`tree` is polars' own MessagePack in base64; `text` is for people."""

    text: str
    tree: bytes


class _Features(msgspec.Struct, frozen=True, kw_only=True):
    engine: str
    expressions: tuple[_Expression, ...]


def build_package(
    blobs: Blobs,
    *,
    expressions: Sequence[pl.Expr],
    booster_text: str,
    raw_schema: Signature,
    profile_bytes: bytes,
    golden_rows: pl.DataFrame,
) -> Package:
    """Make a package and put its files and manifest into the blobs. The same content gives the same digest.

    Args:
        blobs: where the files go.
        expressions: the row-local expressions that made the training matrix, in its order of columns.
        booster_text: `Booster.model_to_string()`.
        raw_schema: the signature: raw inputs, features, kind of output (`infer_signature` makes one).
        profile_bytes: the reference profile that monitors compare with, as they read it.
        golden_rows: at least 16 raw rows in the types that training saw; up to 64 of them become the package's proof.

    Raises:
        Invalid: an expression is not row-local or cannot be kept, the features are not those of the trees, the rows do
            not fit the signature, or the training types give other features than a request would.
        MissingExtra: LightGBM is not installed.
    """
    function = FeatureFunction(
        raw_schema, [decode_expression(encode_expression(item)) for item in expressions]
    )
    rows = _golden_candidates(golden_rows, raw_schema)
    features = prove_row_local(function, rows)
    _check_training_types(function, expressions, rows, features)
    with_booster = Booster(booster_text)
    try:
        _check_trees(with_booster, raw_schema)
        golden = make_golden(conform(rows, raw_schema), features, with_booster.predict(features))
    finally:
        with_booster.close()
    files = {
        "features.json": _features_bytes(expressions),
        "golden.json": golden,
        "model.txt": booster_text.encode(),
        "profile.json": profile_bytes,
        "signature.json": msgspec.json.encode(raw_schema),
    }
    manifest = Manifest(
        files={name: blobs.put(data) for name, data in files.items()}, trees=tree_digest(booster_text)
    )
    return Package(digest=blobs.put(manifest.encode()), manifest=manifest)


def read_manifest(data: bytes) -> Manifest:
    """The manifest of canonical bytes.

    Raises:
        Corrupt: it is none, or of a format or runtime that this Andon does not read.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise Corrupt(f"the package's manifest cannot be read: {error}") from None
    if (manifest.format, manifest.runtime) != (FORMAT, RUNTIME):
        raise Corrupt(
            f"the package has format {manifest.format!r} and runtime {manifest.runtime!r}",
            hint=f"this Andon reads {FORMAT!r} with {RUNTIME!r}",
        )
    if set(manifest.files) != set(FILES):
        raise Corrupt(f"the package's manifest names the files {', '.join(sorted(manifest.files))}")
    if manifest.encode() != data:
        raise Corrupt("the package's manifest is not in canonical form")
    return manifest


def install(blobs: Blobs, digest: Digest, folder: Path) -> Path:
    """Copy a package to `folder`/<hex of its digest> and check every file; a whole copy that is there is used again.

    The copy appears at once or not at all, also when several processes install it. A damaged copy is replaced.

    Raises:
        NotFound: the blobs do not hold it.
        Corrupt: a blob does not match its digest, or is no package.
        StorageFull: there is no room for the copy.
    """
    target = folder / hex_part(parse_digest(digest))
    if _whole(target, digest):
        return target
    data = blobs.get(digest)
    manifest = read_manifest(data)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".installing-", dir=folder))
    try:
        fresh = scratch / "package"
        fresh.mkdir()
        with refusing_full(target):
            for name, wanted in manifest.files.items():
                (fresh / name).write_bytes(blobs.get(wanted))
            (fresh / MANIFEST).write_bytes(data)
        _replace(fresh, target, digest, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def load(folder: Path, digest: Digest | None = None) -> LoadedModel:
    """Load an installed package, after checking every file against its manifest and its answers against the golden rows.

    Args:
        folder: where `install` put it.
        digest: what its manifest must be; by default what a folder named by 64 hex characters says.

    Raises:
        Corrupt: a file was changed, or the answers are not bit for bit those of the build; the message says which.
        MissingExtra: LightGBM is not installed.
    """
    if digest is None and _HEX.match(folder.name):
        digest = Digest(f"sha256:{folder.name}")
    data, files = _checked_files(folder, digest)
    signature = _decoded(files["signature.json"], Signature, folder / "signature.json")
    stored = _decoded(files["features.json"], _Features, folder / "features.json")
    golden = read_golden(files["golden.json"], str(folder / "golden.json"))
    try:
        function = FeatureFunction(signature, [decode_expression(item.tree) for item in stored.expressions])
        booster = Booster(files["model.txt"].decode())
    except Invalid as error:
        raise Corrupt(f"the package in {folder} cannot be used: {error}") from None
    model = LoadedModel(digest_bytes(data), function, booster, files["profile.json"])
    try:
        _check_golden(model, golden, folder, stored.engine)
    except BaseException:
        model.close()
        raise
    return model


class LoadedModel:
    """A model that answers. One thread at a time may use it; close it, or leave its `with` block, to free its trees.

    Attributes:
        digest: the package's, which is the model version's.
        signature: the fields a record must have.
        profile: bytes of the reference profile.
    """

    def __init__(self, digest: Digest, function: FeatureFunction, booster: Booster, profile: bytes) -> None:
        self.digest = digest
        self.signature = function.signature
        self.profile = profile
        self._function = function
        self._booster = booster

    def features(self, frame: pl.DataFrame) -> Floats:
        """The feature matrix (n, k) of raw rows; see `FeatureFunction.frame`."""
        return self._function.frame(frame)

    def predict(self, matrix: Floats) -> Floats:
        """Outputs (n,) of a feature matrix (n, k): probabilities in [0, 1] or values, as the signature says."""
        return self._booster.predict(matrix)

    def features_one(self, record: Record) -> list[float]:
        """The features of one record that was checked against the signature; see `FeatureFunction.row`."""
        return self._function.row(record)

    def predict_features(self, values: Sequence[float]) -> float:
        """The output of one feature vector."""
        return self._booster.predict_row(values)

    def predict_one(self, record: Record) -> tuple[list[float], float]:
        """Features and output of one record that was checked against the signature.

        Raises:
            Invalid: a value cannot be turned into a feature.
        """
        values = self._function.row(record)
        return values, self._booster.predict_row(values)

    def close(self) -> None:
        """Free the trees. Closing twice changes nothing."""
        self._booster.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _golden_candidates(rows: pl.DataFrame, signature: Signature) -> pl.DataFrame:
    """Rows that a request could bring: with all inputs, and no NaN or infinity, which JSON cannot carry."""
    conform(rows, signature)
    floats = [field.name for field in signature.inputs if rows.schema[field.name].is_float()]
    usable = rows
    for name in floats:
        usable = usable.filter(pl.col(name).is_null() | pl.col(name).is_finite())
    for field in signature.inputs:
        if not field.nullable and usable[field.name].null_count():
            raise Invalid(
                f"the column {field.name!r} is null in a golden row and the signature says it never is",
                hint="infer the signature from all training rows",
                field=field.name,
            )
    return usable.head(MAX_ROWS)


def _check_training_types(
    function: FeatureFunction, expressions: Sequence[pl.Expr], rows: pl.DataFrame, features: Floats
) -> None:
    """The types that training saw (say Float32) must give the same features as those of a request."""
    trained = rows.select(expression.cast(pl.Float64) for expression in expressions).to_numpy(order="c")
    if found := differing(np.ascontiguousarray(trained, dtype=np.float64), features):
        name = function.signature.features[found[1]]
        raise Invalid(
            f"the feature {name!r} of row {found[0]} is {trained[found]!r} in training and {features[found]!r} in a request",
            hint="requests bring 64-bit numbers: cast narrower columns in the source or in the expression",
            field=name,
        )


def _check_trees(booster: Booster, signature: Signature) -> None:
    names = tuple(name.replace(" ", "_") for name in signature.features)
    unnamed = tuple(f"Column_{index}" for index in range(len(names)))
    if booster.features not in (names, unnamed):
        raise Invalid(
            f"the trees were trained on {len(booster.features)} features ({', '.join(booster.features[:10])}),"
            f" the expressions give {len(names)} ({', '.join(names[:10])})",
            hint="train on rows.select(expressions), in that order",
        )
    if booster.output != signature.output:
        raise Invalid(f"the trees give a {booster.output} and the signature says {signature.output}")


def _check_golden(model: LoadedModel, golden: Golden, folder: Path, engine: str) -> None:
    """Features and outputs of the golden rows, in a batch and one by one, must be those of the build, bit for bit."""
    records = golden.rows
    frame = pl.DataFrame(list(records), schema=model._function.schema, orient="row")
    try:
        features = model.features(frame)
        single = [model.predict_one(record) for record in records]
    except Invalid as error:
        raise Corrupt(f"the golden rows of the package in {folder} cannot be computed: {error}") from None
    ways = (
        ("in a batch", features, model.predict(features)),
        (
            "one by one",
            np.array([values for values, _ in single]),
            np.array([output for _, output in single]),
        ),
    )
    for how, values, outputs in ways:
        if found := differing(values, golden.features):
            row, name = found[0], model.signature.features[found[1]]
            raise _unlike(
                folder,
                engine,
                f"the feature {name!r} of golden row {row}",
                values[found],
                golden.features[found],
                how,
            )
        if found := differing(outputs[:, None], golden.outputs[:, None]):
            row = found[0]
            raise _unlike(
                folder, engine, f"the output of golden row {row}", outputs[row], golden.outputs[row], how
            )


def _unlike(folder: Path, engine: str, what: str, found: float, wanted: float, how: str) -> Corrupt:
    return Corrupt(
        f"{what} is {found!r} {how} and was {wanted!r} when the package in {folder} was built",
        hint=f"it was built with {engine}, this is polars {pl.__version__}: build the model again, or run it with that version",
    )


def _features_bytes(expressions: Sequence[pl.Expr]) -> bytes:
    kept = tuple(_Expression(text=str(item), tree=encode_expression(item)) for item in expressions)
    return msgspec.json.encode(_Features(engine=f"polars {pl.__version__}", expressions=kept))


def _checked_files(folder: Path, digest: Digest | None) -> tuple[bytes, dict[str, bytes]]:
    """The manifest's bytes and the files' bytes, each as its digest says."""
    data = _read(folder / MANIFEST)
    if digest is not None and digest_bytes(data) != digest:
        raise Corrupt(
            f"{folder / MANIFEST} does not match {digest}", hint="delete the folder and install it again"
        )
    files = {}
    for name, wanted in read_manifest(data).files.items():
        files[name] = _read(folder / name)
        if digest_bytes(files[name]) != wanted:
            raise Corrupt(
                f"{folder / name} does not match {wanted}", hint="delete the folder and install it again"
            )
    return data, files


def _whole(target: Path, digest: Digest) -> bool:
    try:
        _checked_files(target, digest)
    except Corrupt:
        return False
    return True


def _replace(fresh: Path, target: Path, digest: Digest, scratch: Path) -> None:
    """Put a fresh copy in place; when another process was faster and its copy is whole, keep that."""
    for attempt in range(10):
        try:
            fresh.rename(target)
        except OSError:
            if _whole(target, digest):
                return
            with contextlib.suppress(FileNotFoundError):
                target.rename(scratch / f"damaged-{attempt}")
        else:
            return
    raise Unavailable(f"{target} is replaced by others again and again", hint="see what else writes there")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise Corrupt(f"{path} is missing", hint="delete the folder and install it again") from None


def _decoded(data: bytes, form: type[_T], path: Path) -> _T:
    try:
        return msgspec.json.decode(data, type=form)
    except msgspec.DecodeError as error:
        raise Corrupt(f"{path} cannot be read: {error}") from None
