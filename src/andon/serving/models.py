"""Packages become runtimes, and a rehearsal can make one of them wrong on purpose."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from andon.core.canonical import Digest
from andon.core.ids import ModelVersionId
from andon.core.routes import EndpointRoute
from andon.core.signature import Signature
from andon.registry.packaging import LoadedModel, install, load
from andon.registry.packaging.features import DTYPES
from andon.serving.decode import RecordDecoder
from andon.serving.table import Runtime
from andon.store.files import read_or_none
from andon.store.ports import Blobs

_log = logging.getLogger("andon.gateway")


def loading(blobs: Blobs, folder: Path) -> Callable[[Digest], Runtime]:
    """A function that loads a package by its digest: from the local copy in `folder`, made from the blobs when it is missing.

    Every file and the golden rows are checked; see `andon.registry.packaging.load` for what it raises.
    """

    def runtime(digest: Digest) -> Runtime:
        model = PackagedModel(load(install(blobs, digest, folder), digest))
        return Runtime(model, RecordDecoder(model.signature))

    return runtime


class PackagedModel:
    """A loaded package as the gateway uses it. One thread at a time."""

    def __init__(self, package: LoadedModel) -> None:
        self.package = package
        self.predict_one = package.predict_one
        self._schema = pl.Schema({field.name: DTYPES[field.kind] for field in package.signature.inputs})

    @property
    def signature(self) -> Signature:
        """The fields a record must have."""
        return self.package.signature

    def predict_many(self, records: Sequence[dict[str, Any]]) -> list[tuple[list[float], float]]:
        """Features and output of each record, in order."""
        matrix = self.package.features(pl.DataFrame(list(records), schema=self._schema, orient="row"))
        return list(zip(matrix.tolist(), self.package.predict(matrix).tolist(), strict=True))


class StuckFeature:
    """A model one of whose features is stuck at a value: what a broken join or a forgotten unit looks like.

    Stuck at None the feature cannot be read at all: what a live source that is down looks like.
    """

    def __init__(self, package: LoadedModel, feature: str, value: float | None) -> None:
        self.signature = package.signature
        self._package = package
        self._feature = feature
        self._column = package.signature.features.index(feature)
        self._value = value

    def predict_one(self, record: dict[str, Any]) -> tuple[list[float], float]:
        """As the model, with the feature stuck."""
        values = self._package.features_one(record)
        if self._value is None:
            raise LookupError(f"the live source of the feature {self._feature!r} does not answer")
        values[self._column] = self._value
        return values, self._package.predict_features(values)

    def predict_many(self, records: Sequence[dict[str, Any]]) -> list[tuple[list[float], float]]:
        """As the model, with the feature stuck."""
        return [self.predict_one(record) for record in records]


class _Stuck(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model_version: ModelVersionId
    feature: str
    value: float | None


class _Switches(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stuck_feature: _Stuck | None = None


def no_faults(
    _loaded: Mapping[Digest, Runtime], _routes: Iterable[EndpointRoute], /
) -> Mapping[ModelVersionId, Runtime]:
    """What every gateway outside a rehearsal uses."""
    return {}


class FaultSwitches:
    """The runtimes that the file of fault switches asks for, read again whenever it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text: bytes | None = None
        self._switches = _Switches()
        self._made: dict[Digest, Runtime] = {}

    def __call__(
        self, loaded: Mapping[Digest, Runtime], routes: Iterable[EndpointRoute], /
    ) -> Mapping[ModelVersionId, Runtime]:
        text = read_or_none(self._path)
        if text != self._text:
            self._text, self._made, self._switches = text, {}, self._parsed(text)
        stuck = self._switches.stuck_feature
        if stuck is None:
            return {}
        digests = {
            arm.digest for route in routes for arm in route.arms if arm.model_version == stuck.model_version
        }
        for digest in digests & set(loaded):
            if digest not in self._made:
                self._made[digest] = self._break(loaded[digest], stuck)
        found = next((self._made[digest] for digest in digests if digest in self._made), None)
        return {} if found is None else {stuck.model_version: found}

    def _parsed(self, text: bytes | None) -> _Switches:
        try:
            return _Switches() if text is None else msgspec.json.decode(text, type=_Switches)
        except msgspec.DecodeError as error:
            _log.warning("%s holds no fault switches: %s", self._path.name, error)
            return _Switches()

    def _break(self, runtime: Runtime, stuck: _Stuck) -> Runtime:
        """The runtime with the feature stuck; as it is when it has no such feature."""
        model = runtime.model
        if not isinstance(model, PackagedModel) or stuck.feature not in model.signature.features:
            _log.warning("%s has no feature %r to be stuck", stuck.model_version, stuck.feature)
            return runtime
        _log.warning("rehearsal: %s sees %r stuck at %s", stuck.model_version, stuck.feature, stuck.value)
        return Runtime(StuckFeature(model.package, stuck.feature, stuck.value), runtime.decoder)
