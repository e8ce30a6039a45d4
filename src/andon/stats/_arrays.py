"""Input checks shared by this room: parse once, with a message that names the argument."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def binary(name: str, values: npt.ArrayLike) -> Bools:
    """A one-dimensional array of booleans from booleans or from numbers that are all 0 or 1."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}; pass one entry per row.")
    if array.size == 0:
        return np.zeros(0, dtype=np.bool_)
    if array.dtype != np.bool_ and not (array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all()):
        raise ValueError(
            f"{name} must hold only booleans or 0 and 1, with no nulls; got dtype {array.dtype}."
        )
    return array.astype(np.bool_)


def reals(name: str, values: npt.ArrayLike, *, allow_nan: bool = False) -> Floats:
    """A one-dimensional float64 array; infinities are kept, nan is refused unless it stands for null."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers, with nan for null: {error}.") from error
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}; pass one entry per row.")
    if not allow_nan and np.isnan(array).any():
        raise ValueError(
            f"{name} holds nan; drop or fill those rows first, a nan can be neither ranked nor scored."
        )
    return array


def same_length(first: str, n: int, second: str, m: int) -> None:
    """Refuse columns of different lengths."""
    if n != m:
        raise ValueError(f"{first} has {n} rows and {second} has {m}; pass one entry per row in both.")
