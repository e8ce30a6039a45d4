"""The MLmodel of an Andon package: what MLflow's tools need to load it, made when somebody asks for it.

It is no file of the package. The package's digest says what answers; the MLmodel also names the version and the run, which
are no part of that. So packages that were made before this module have one too, and no digest changes. JSON is YAML, so
nothing here writes YAML.

MLflow imports this module by the name that the MLmodel gives and calls `_load_pyfunc`: whoever loads a model so needs Andon
installed, and no server. Where the features are plain columns, LightGBM's own flavor is offered too, which needs no Andon.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
import polars as pl

from andon.core.canonical import Digest, parse_digest
from andon.core.entities import ModelVersion
from andon.core.errors import Corrupt, Invalid
from andon.core.signature import Field, Kind, Signature
from andon.registry.packaging.features import Floats
from andon.registry.packaging.package import LoadedModel, Manifest, load
from andon.store.ports import Blobs

NAME = "MLmodel"
REQUIREMENTS = "requirements.txt"
_TYPES: Mapping[Kind, str] = {"integer": "long", "number": "double", "string": "string", "boolean": "boolean"}
_POLARS: Mapping[Kind, pl.DataType] = {
    "integer": pl.Int64(), "number": pl.Float64(), "string": pl.String(), "boolean": pl.Boolean()
}  # fmt: skip
_ENGINE = re.compile(r"polars (\d[\w.+-]*)\Z")


class _Expression(msgspec.Struct, frozen=True):
    text: str


class _Features(msgspec.Struct, frozen=True):
    """As much of `features.json` as is needed here."""

    engine: str
    expressions: tuple[_Expression, ...]


def files(blobs: Blobs, version: ModelVersion, manifest: Manifest) -> Mapping[str, bytes]:
    """The files that MLflow's tools look for, by name: the MLmodel and the requirements.

    Raises:
        NotFound: a file of the package is gone.
        Corrupt: a file of the package does not match its digest.
    """
    signature = msgspec.json.decode(blobs.get(manifest.files["signature.json"]), type=Signature)
    features = msgspec.json.decode(blobs.get(manifest.files["features.json"]), type=_Features)
    flavors: dict[str, object] = {"python_function": {"loader_module": __name__}}
    if is_plain(signature, [expression.text for expression in features.expressions]):
        flavors["lightgbm"] = {"data": "model.txt", "model_class": "lightgbm.basic.Booster"}
    said: dict[str, object] = {
        "artifact_path": "model",
        "flavors": flavors,
        "metadata": {"andon": {"digest": version.digest, "model": version.model, "version": version.number}},
        "model_uuid": version.id.rpartition("_")[2],
        "utc_time_created": version.created_at.strftime("%Y-%m-%d %H:%M:%S.%f"),
    }
    if version.run is not None:
        said["run_id"] = version.run
    if (columns := _columns(signature)) is not None:
        outputs = msgspec.json.encode([{"type": "double"}]).decode()
        said["signature"] = {"inputs": columns, "outputs": outputs, "params": None}
    return {
        NAME: msgspec.json.format(msgspec.json.encode(said), indent=2) + b"\n",
        REQUIREMENTS: _requirements(features.engine).encode(),
    }


def is_plain(signature: Signature, expressions: list[str]) -> bool:
    """Whether every feature is a raw column of numbers as it is, so that the trees alone answer for raw rows.

    >>> age = Field(name="age", kind="number")
    >>> is_plain(Signature(inputs=(age,), features=("age",)), ['col("age")'])
    True
    >>> is_plain(Signature(inputs=(age,), features=("age",)), ['[(col("age")) * (2.0)]'])
    False
    """
    names = tuple(field.name for field in signature.inputs)
    numbers = all(field.kind in ("integer", "number") for field in signature.inputs)
    return numbers and names == signature.features and expressions == [f'col("{name}")' for name in names]


def _columns(signature: Signature) -> str | None:
    """The inputs as MLflow spells a schema. None when it has no type for one: a table has no integer that is missing, and
    MLflow would refuse it or turn it into another number."""
    if any(field.nullable and field.kind in ("integer", "boolean") for field in signature.inputs):
        return None
    spelled = [{"name": field.name, "type": _TYPES[field.kind]} for field in signature.inputs]
    return msgspec.json.encode(spelled).decode()


def _requirements(engine: str) -> str:
    """What whoever loads the model needs. The version of polars is the one that made the golden rows."""
    found = _ENGINE.match(engine)
    return "andon[lightgbm]\n" + (f"polars=={found[1]}\n" if found else "")


# --- what MLflow calls ---


class PythonFunction:
    """An Andon package as a function of a table. Safe to share between threads; they answer one after the other."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._lock = Lock()

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Floats:  # MLflow gives both
        """Outputs (n,) of raw rows: a pandas DataFrame, or anything whose columns are found by name.

        Args:
            data: columns of the signature's inputs; what is missing in one (None, NaN, NA) is null.
            params: none are known.

        Raises:
            Invalid: a column is not there, or a value is not of the signature's kind.
        """
        frame = pl.DataFrame([_column(data, field) for field in self._model.signature.inputs])
        with self._lock:
            return self._model.predict(self._model.features(frame))


def _load_pyfunc(path: str) -> PythonFunction:
    """Load a downloaded package, after checking every file and its golden rows; called by MLflow.

    Raises:
        Corrupt: a file was changed, or the answers are not those of the build.
    """
    folder = Path(path)
    return PythonFunction(load(folder, _digest_of(folder)))


def _digest_of(folder: Path) -> Digest | None:
    """The digest that the MLmodel says the package has; None when MLflow wrote it anew, as YAML."""
    try:
        said = msgspec.json.decode((folder / NAME).read_bytes())
        return parse_digest(said["metadata"]["andon"]["digest"])
    except Invalid as error:
        raise Corrupt(f"{folder / NAME} does not name the package: {error}") from None
    except (OSError, msgspec.DecodeError, LookupError, TypeError):
        return None


def _column(data: Any, field: Field) -> pl.Series:
    try:
        column = data[field.name]
    except (LookupError, TypeError, ValueError):
        raise Invalid(
            f"there is no column {field.name!r}", hint="the model needs it", field=field.name
        ) from None
    values = [_value(value, field) for value in (column.tolist() if hasattr(column, "tolist") else column)]
    if not field.nullable and None in values:
        raise Invalid(
            f"the column {field.name!r} has no value in row {values.index(None)}",
            hint="it always needs one",
            field=field.name,
        )
    return pl.Series(field.name, values, dtype=_POLARS[field.kind])


def _value(value: Any, field: Field) -> str | int | float | bool | None:
    """One value as the signature's kind, None when it is missing. No value is turned into another one."""
    if (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, float) and math.isnan(value))
    ):
        return None
    match field.kind:
        case "string" if isinstance(value, str):
            return value
        case "boolean" if isinstance(value, bool):
            return value
        case "number" if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        case "integer" if isinstance(value, int) and not isinstance(value, bool):
            return value
        case "integer" if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
            return int(value)  # pandas keeps integers as floats where one is missing
    raise Invalid(
        f"{str(value)[:80]!r} in column {field.name!r} is no {field.kind}",
        hint="give the type it was trained on",
        field=field.name,
    )
