"""Moving between Andon and MLflow: a whole store comes in with its ids kept, and goes out as one that MLflow opens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from andon.core.errors import Invalid

if TYPE_CHECKING:
    from andon.tracking.moving.values import ForeignStore

__all__ = ["open_foreign"]


def open_foreign(address: str) -> ForeignStore:
    """The MLflow store of an address: `sqlite:///mlflow.db`, `postgresql://user@host/name`, or a folder (`mlruns`).

    Raises:
        Invalid: the address is of no known kind, or what is there is no store.
        SourceError: nothing is there, or it cannot be read.
        MissingExtra: a driver or PyYAML is not installed.
    """
    from andon.tracking.moving.database import open_database
    from andon.tracking.moving.folder import open_folder

    scheme, found, rest = address.partition("://")
    if not found or scheme == "file":
        return open_folder(Path(rest if found else address))
    if scheme.partition("+")[0] in ("sqlite", "postgresql", "postgres"):
        return open_database(address)
    raise Invalid(
        f"a store at '{scheme}://' cannot be read",
        hint="give sqlite:///mlflow.db, postgresql://user@host/name or the folder mlruns; another database can be "
        "copied to one of these with MLflow's own tools",
    )
