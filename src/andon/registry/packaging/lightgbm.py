"""LightGBM models through their C library alone: a text becomes trees, trees answer, bit for bit as LightGBM itself does.

The Python side of LightGBM imports scipy and more (a second and 100 MB); its shared library needs none of that, so this
module finds the library of the installed package and talks to it with ctypes. Every call runs on one thread, which
makes the sums of a prediction the same on every machine. Loading a model text runs no code.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
import weakref
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from andon.core.canonical import Digest, digest_bytes
from andon.core.errors import Corrupt, Invalid, MissingExtra

Floats = npt.NDArray[np.float64]
Output = Literal["probability", "value"]

OBJECTIVES: dict[str, Output] = {
    "binary": "probability",
    "cross_entropy": "probability",
    "regression": "value",
    "regression_l1": "value",
    "huber": "value",
    "fair": "value",
    "poisson": "value",
    "quantile": "value",
    "mape": "value",
    "gamma": "value",
    "tweedie": "value",
}
"""The objectives whose output is one number a row, and what that number is."""

_LIBRARIES = (
    "lib/lib_lightgbm.so",
    "lib/lib_lightgbm.dylib",
    "bin/lib_lightgbm.dll",
    "lib_lightgbm.so",
    "lib_lightgbm.dll",
)
_PARAMETERS = b"num_threads=1 verbosity=-1"
_FOOTER = "\nparameters:"
_NORMAL, _FLOAT64, _ROW_MAJOR, _ALL = 0, 1, 1, -1
_OBJECTIVE = re.compile(r"^objective=(\w+)", re.MULTILINE)
_PANDAS = re.compile(r"^pandas_categorical:(?!null\s*$|\[\]\s*$)", re.MULTILINE)


def tree_digest(text: str) -> Digest:
    """The digest of a model text up to its parameter footer: the trees and all that prediction needs.

    The footer holds settings of the training machine, such as the number of threads, that change no answer.

    >>> tree_digest("tree\\nparameters:\\n[num_threads: 1]") == tree_digest(
    ...     "tree\\nparameters:\\n[num_threads: 8]"
    ... )
    True
    """
    return digest_bytes(text.split(_FOOTER, 1)[0].encode())


class Booster:
    """A LightGBM model ready to answer. One thread at a time may use it; `close` gives its memory back.

    Args:
        text: the model in LightGBM's native text form, of a binary or a regression objective.

    Raises:
        MissingExtra: LightGBM is not installed.
        Invalid: the text is of a kind of model that is not one number a row, such as multiclass or ranking.
        Corrupt: LightGBM cannot read the text.
    """

    def __init__(self, text: str) -> None:
        self.output = _output(text)
        self._lib = _library()
        handle = c_void_p()
        rounds = c_int()
        if self._lib.LGBM_BoosterLoadModelFromString(text.encode(), byref(rounds), byref(handle)):
            raise Corrupt(f"LightGBM cannot read the model text: {_last_error(self._lib)}")
        fast = c_void_p()
        self._finalizer = weakref.finalize(self, _free, self._lib, handle, fast)
        self._handle = handle
        self.rounds = rounds.value
        if (outputs := self._integer("LGBM_BoosterGetNumClasses")) != 1:
            self.close()
            raise Invalid(
                f"the LightGBM model gives {outputs} numbers a row",
                hint="package a binary or a regression model",
            )
        self.features = self._names(self._integer("LGBM_BoosterGetNumFeature"))
        self._row = (c_double * max(1, len(self.features)))()
        self._out = c_double()
        self._length = c_int64()
        self._call(
            "LGBM_BoosterPredictForMatSingleRowFastInit", handle, c_int(_NORMAL), c_int(0), c_int(_ALL), c_int(_FLOAT64),
            c_int(len(self.features)), c_char_p(_PARAMETERS), byref(fast),
        )  # fmt: skip
        self._fast = self._lib.LGBM_BoosterPredictForMatSingleRowFast
        self._fast_arguments = (fast, self._row, byref(self._length), byref(self._out))

    def predict(self, matrix: Floats) -> Floats:
        """Outputs (n,) of feature rows (n, k); NaN is a missing value.

        Raises:
            Invalid: the matrix is not (n, k).
        """
        self._check_open()
        if matrix.ndim != 2 or matrix.shape[1] != len(self.features):
            raise Invalid(
                f"a matrix of shape {matrix.shape} was given to a model of {len(self.features)} features"
            )
        rows = np.ascontiguousarray(matrix, dtype=np.float64)
        out = np.empty(len(rows), dtype=np.float64)
        if not len(rows):
            return out
        length = c_int64()
        self._call(
            "LGBM_BoosterPredictForMat", self._handle, rows.ctypes.data_as(c_void_p), c_int(_FLOAT64), c_int(len(rows)),
            c_int(rows.shape[1]), c_int(_ROW_MAJOR), c_int(_NORMAL), c_int(0), c_int(_ALL), c_char_p(_PARAMETERS),
            byref(length), out.ctypes.data_as(POINTER(c_double)),
        )  # fmt: skip
        return out

    def predict_row(self, values: Sequence[float]) -> float:
        """The output of one row of k features, about a hundred times cheaper than a matrix of one row."""
        self._check_open()
        self._row[:] = list(values)
        if self._fast(*self._fast_arguments):
            raise Corrupt(f"LightGBM cannot predict: {_last_error(self._lib)}")
        return self._out.value

    def close(self) -> None:
        """Free the model. Closing twice changes nothing; predicting afterwards is refused."""
        self._finalizer()

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise Invalid("the LightGBM model is closed", hint="load it again")

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._lib, name)(*arguments):
            raise Corrupt(f"LightGBM's {name} failed: {_last_error(self._lib)}")

    def _integer(self, name: str) -> int:
        value = c_int()
        self._call(name, self._handle, byref(value))
        return value.value

    def _names(self, count: int) -> tuple[str, ...]:
        """Names of the features. Asked twice: first how long the longest is, then into buffers of that size."""
        size = 1
        while True:
            buffers = [ctypes.create_string_buffer(size) for _ in range(count)]
            pointers = (c_void_p * count)(*(ctypes.addressof(buffer) for buffer in buffers))
            number, needed = c_int(), ctypes.c_size_t()
            self._call(
                "LGBM_BoosterGetFeatureNames", self._handle, c_int(count), byref(number), ctypes.c_size_t(size),
                byref(needed), pointers,
            )  # fmt: skip
            if needed.value <= size:
                return tuple(buffer.value.decode() for buffer in buffers)
            size = needed.value


def _output(text: str) -> Output:
    """What the model's one number is, from the objective that its text names."""
    if _PANDAS.search(text):
        raise Invalid(
            "the LightGBM model was trained on pandas categories, whose codes only pandas knows",
            hint="turn categories into numbers in the feature expressions, e.g. with replace_strict",
        )
    found = _OBJECTIVE.search(text.split("\nTree=", 1)[0])
    objective = found[1] if found else "none"
    if objective not in OBJECTIVES:
        raise Invalid(
            f"a LightGBM model of objective {objective!r} cannot be served",
            hint="train with one of " + ", ".join(sorted(OBJECTIVES)),
        )
    return OBJECTIVES[objective]


@functools.cache
def _library() -> ctypes.CDLL:
    """The shared library inside the installed package, which itself is not imported."""
    found = importlib.util.find_spec("lightgbm")
    if found is None or not found.origin:
        raise MissingExtra("LightGBM models", "lightgbm")
    folder = Path(found.origin).parent
    path = next((folder / name for name in _LIBRARIES if (folder / name).is_file()), None)
    if path is None:
        raise MissingExtra("LightGBM models", "lightgbm")
    library = ctypes.CDLL(str(path))
    library.LGBM_GetLastError.restype = c_char_p
    return library


def _last_error(library: ctypes.CDLL) -> str:
    return (library.LGBM_GetLastError() or b"").decode(errors="replace")


def _free(library: ctypes.CDLL, handle: c_void_p, fast: c_void_p) -> None:
    if fast.value is not None:
        library.LGBM_FastConfigFree(fast)
    library.LGBM_BoosterFree(handle)
