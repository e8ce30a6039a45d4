"""The errors Andon raises: one base class, and a subclass for each thing a caller can do something about.

A message says what happened, to which thing, and what to do next. `code` is what HTTP answers carry as
`error_code`, `status` the HTTP status, `exit_code` what a command ends with.
"""

from __future__ import annotations


class AndonError(Exception):
    """Base of every error that Andon raises on purpose.

    >>> str(NotFound("run 'r1' does not exist", hint="list runs with 'andon status'"))
    "run 'r1' does not exist; list runs with 'andon status'"
    """

    code = "INTERNAL_ERROR"
    status = 500
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class NotFound(AndonError, LookupError):
    """The thing named does not exist."""

    code, status, exit_code = "RESOURCE_DOES_NOT_EXIST", 404, 4


class AlreadyExists(AndonError, ValueError):
    """A thing of that name or id is there already."""

    code, status, exit_code = "RESOURCE_ALREADY_EXISTS", 409, 5


class Invalid(AndonError, ValueError):
    """What was given cannot be accepted as it is; `field` names the part at fault when there is one."""

    code, status, exit_code = "INVALID_PARAMETER_VALUE", 400, 2

    def __init__(self, message: str, *, hint: str = "", field: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class TooLarge(Invalid):
    """A body, field or file is over its limit."""

    code, status = "PAYLOAD_TOO_LARGE", 413


class PolicyError(Invalid):
    """`andon.toml` is missing, malformed or asks for what the workspace cannot do."""

    code, exit_code = "INVALID_POLICY", 2


class SourceError(AndonError, OSError):
    """A data source is not there or cannot be read."""

    code, status, exit_code = "SOURCE_UNAVAILABLE", 502, 6


class ContractBroken(AndonError, ValueError):
    """Rows break the data contract and its severity is `block`."""

    code, status, exit_code = "CONTRACT_BROKEN", 422, 7


class Conflict(AndonError, RuntimeError):
    """Somebody else changed the row first: read again and decide again."""

    code, status, exit_code = "RESOURCE_CONFLICT", 409, 8


class InvalidTransition(Conflict):
    """The state machine of the thing has no such step from where it is."""

    code = "INVALID_STATE"


class LeaseLost(Conflict):
    """The lease under which this was done has been taken over; the work was refused and changed nothing."""

    code = "LEASE_LOST"


class Unauthenticated(AndonError, PermissionError):
    """No valid credentials came with the request."""

    code, status, exit_code = "UNAUTHENTICATED", 401, 9


class Forbidden(AndonError, PermissionError):
    """The actor is known and may not do this."""

    code, status, exit_code = "PERMISSION_DENIED", 403, 9


class Corrupt(AndonError, RuntimeError):
    """Stored bytes do not match their digest: they are not used."""

    code, status, exit_code = "CORRUPT", 500, 10


class LedgerBroken(Corrupt):
    """The audit chain does not verify."""

    code = "LEDGER_BROKEN"


class StorageFull(AndonError, OSError):
    """The disk or its quota is full; what was acknowledged before is safe, this was not stored."""

    code, status, exit_code = "STORAGE_FULL", 507, 11


class SchemaTooNew(AndonError, RuntimeError):
    """The database was written by a newer Andon than this one."""

    code, status, exit_code = "SCHEMA_TOO_NEW", 500, 12


class PortInUse(AndonError, OSError):
    """Another process listens on the port."""

    code, status, exit_code = "PORT_IN_USE", 500, 13


class Unavailable(AndonError, RuntimeError):
    """A part that is needed does not answer just now; trying again is safe."""

    code, status, exit_code = "TEMPORARILY_UNAVAILABLE", 503, 14


class MissingExtra(AndonError, ImportError):
    """An optional dependency is not installed.

    >>> str(MissingExtra("LightGBM models", "lightgbm"))
    'LightGBM models need an optional dependency; run: pip install "andon[lightgbm]"'
    """

    code, status, exit_code = "MISSING_EXTRA", 500, 15

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} need an optional dependency", hint=f'run: pip install "andon[{extra}]"')
