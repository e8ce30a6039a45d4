"""Who may do what, and how a request proves who it comes from.

Permissions are few and named after what a person wants; roles are sets of them, as data. What is not allowed is denied.
In a workspace of one person that person is the operating system's user, and the proof is a token in a file only they
can read: other users of the machine reach the same TCP port, but not the file. A browser gets in with a login code that
works once, and keeps a session that ends with the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import pwd
import re
import secrets
import stat
import threading
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from andon.core.clock import Clock
from andon.core.entities import Actor, Personal
from andon.core.errors import Forbidden, Invalid
from andon.core.events import EventDraft
from andon.core.ids import ActorId, new_id, node
from andon.store.ports import Reader, Transaction

TOKEN_PREFIX = "andon_"  # noqa: S105  # says what it is, and is no secret
CODE_TTL_S = 600.0
SESSION_TTL_S = 12 * 3600.0
MOST_CODES = 32
MOST_SESSIONS = 256
_NAMES: Mapping[str, str] = {"system:andon": "Andon"}
_TOKEN = re.compile(r"andon_[A-Za-z0-9_-]{43}\Z")


class Permission(StrEnum):
    """What a role can hold. Every route asks for exactly one of them."""

    READ = "read"
    PREDICT = "predict"
    RUN = "run"
    RELEASE = "release"
    UNDO = "undo"
    FEEDBACK = "feedback"
    ADMIN = "admin"


ROLES: Mapping[str, frozenset[Permission]] = {
    "viewer": frozenset({Permission.READ}),
    "client": frozenset({Permission.PREDICT, Permission.FEEDBACK}),
    "operator": frozenset(Permission) - {Permission.RELEASE, Permission.ADMIN},
    "owner": frozenset(Permission),
}
"""Roles by name. An operator runs lines and undoes; moving models forward takes an owner."""


class Principal(msgspec.Struct, frozen=True):
    """Who a request comes from, once that is proven."""

    actor: Actor
    role: str

    def may(self, permission: Permission) -> bool:
        """Whether the role holds the permission; an unknown role holds none."""
        return permission in ROLES.get(self.role, frozenset())


def require(principal: Principal, permission: Permission) -> None:
    """Let through, or refuse.

    Raises:
        Forbidden: the principal's role does not hold the permission.
    """
    if not principal.may(permission):
        raise Forbidden(
            f"the role {principal.role!r} may not {permission.value}",
            hint=f"ask an owner of the workspace for a role that may {permission.value}",
        )


# --- actors ---


def person_of_this_process() -> tuple[str, str]:
    """How the operating system's user is known, and their name: `("os:1000", "ann")`.

    >>> person_of_this_process()[0].startswith("os:")
    True
    """
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"user {uid}"
    return f"os:{uid}", name


def ensure_actor(
    tx: Transaction, subject: str, kind: Literal["person", "service", "line"], name: str, at: datetime
) -> Actor:
    """The actor who is known as `subject`; first seen, it gets a row, an erasable name and an event, once.

    Args:
        subject: how the actor is known, such as `os:1000` or `line:churn`; unique in the workspace.
        name: what people call it. Kept apart from the row, so that it can be erased.
        at: wall time.
    """
    known = tx.actors.select({"subject": subject}, limit=1)
    if known:
        return known[0]
    actor = tx.actors.add(Actor(id=ActorId(new_id("actor")), kind=kind, subject=subject, created_at=at))
    me = node("actor", actor.id)
    tx.personal.add(Personal(id=me, subject=me, salt=secrets.token_hex(16), text=name))
    tx.ledger.append(
        EventDraft(kind="actor.created", actor=actor.id, subject=me, at=at, facts={"kind": kind})
    )
    return actor


def actor_name(reader: Reader, ident: str) -> str:
    """What people call an actor. Lines and Andon itself are called by their subject; a person whose name was erased, by id."""
    row = reader.personal.find(node("actor", ident))
    if row is not None and row.text:
        return row.text
    actor = reader.actors.find(ident)
    if actor is None or actor.kind == "person":
        return ident
    return _NAMES.get(actor.subject) or actor.subject.replace(":", " ", 1)


# --- the token file ---


def ensure_token(path: Path) -> str:
    """The workspace's token, made when there is none yet. Two processes that start at once get the same one.

    Raises:
        Forbidden: the file can be read by others, is a link, belongs to another user, or holds no token.
    """
    if not os.path.lexists(path):
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        _write_private(fresh, TOKEN_PREFIX + secrets.token_urlsafe(32) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return read_token(path)


def read_token(path: Path) -> str:
    """The token in a file that only its owner can read.

    Raises:
        Forbidden: the file can be read by others, is a link, belongs to another user, or holds no token.
        FileNotFoundError: there is none.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Forbidden(
            f"the token file {path} cannot be opened: {error.strerror}", hint=_again(path)
        ) from None
    with os.fdopen(handle, encoding="ascii", errors="replace") as file:
        status = os.fstat(file.fileno())
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o177:
            raise Forbidden(
                f"the token file {path} has mode {mode:04o}: others may have read it", hint=_again(path)
            )
        if status.st_uid != os.geteuid():
            raise Forbidden(f"the token file {path} belongs to user {status.st_uid}", hint=_again(path))
        text = file.read(200).strip()
    if not _TOKEN.match(text):
        raise Forbidden(f"the token file {path} holds no token", hint=_again(path))
    return text


def same(given: str, secret: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell how far they agree.

    >>> same("andon_x", "andon_x"), same("andon_x", "andon_y")
    (True, False)
    """
    return hmac.compare_digest(given.encode(), secret.encode())


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _again(path: Path) -> str:
    return f"delete {path.name} and start again: a new token is made"


# --- browsers ---


class LoginCodes:
    """Codes that open one browser session each, within ten minutes. Safe to share between threads.

    Only hashes are kept, in memory; the oldest code gives way when there are too many.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[bytes, tuple[float, str]] = {}

    def mint(self, role: str = "owner") -> str:
        """A new code for a role."""
        if role not in ROLES:
            raise Invalid(f"{role!r} is not a role", hint=f"roles are {', '.join(ROLES)}")
        code = secrets.token_urlsafe(24)
        with self._lock:
            while len(self._until) >= MOST_CODES:
                del self._until[next(iter(self._until))]
            self._until[_hash(code)] = (self._clock.monotonic_s() + CODE_TTL_S, role)
        return code

    def redeem(self, code: str) -> str | None:
        """The role that a code opens, once; None when it is unknown, used or too old."""
        with self._lock:
            until, role = self._until.pop(_hash(code), (0.0, ""))
        return role if role and self._clock.monotonic_s() < until else None


class Session(msgspec.Struct, frozen=True):
    """One browser that is logged in. `until` is monotonic seconds."""

    id: str
    principal: Principal
    until: float


class Sessions:
    """The browsers that are logged in, in the memory of one process. Safe to share between threads.

    The cookie is a random id and its signature under a key that is made anew with each start, so that a cookie of
    another process or a made-up one is told apart without a look at the table.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        self._open: dict[str, Session] = {}

    def open(self, principal: Principal) -> str:
        """A new session's cookie value."""
        ident = secrets.token_urlsafe(32)
        session = Session(ident, principal, self._clock.monotonic_s() + SESSION_TTL_S)
        with self._lock:
            while len(self._open) >= MOST_SESSIONS:
                del self._open[next(iter(self._open))]
            self._open[ident] = session
        return f"{ident}.{self._sign(ident)}"

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie; None when it is not ours, closed or too old."""
        ident, _, mac = cookie.partition(".")
        if not same(mac, self._sign(ident)):
            return None
        with self._lock:
            session = self._open.get(ident)
            if session is not None and self._clock.monotonic_s() >= session.until:
                del self._open[ident]
                session = None
        return session

    def alive(self, session: Session) -> bool:
        """Whether a session found earlier still holds."""
        with self._lock:
            return session.id in self._open and self._clock.monotonic_s() < session.until

    def close(self, session: Session) -> None:
        """End a session; ending it again changes nothing."""
        with self._lock:
            self._open.pop(session.id, None)

    def _sign(self, ident: str) -> str:
        return hmac.new(self._key, ident.encode(), hashlib.sha256).hexdigest()


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()
