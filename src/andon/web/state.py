"""What the control process keeps in memory: the open workspace, who is logged in, and the streams that are open."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

import msgspec
from starlette.requests import Request

from andon.core.errors import AndonError, Forbidden, Unauthenticated, Unavailable
from andon.core.events import EventDraft
from andon.core.ids import node
from andon.governance.access import (
    LoginCodes,
    Permission,
    Principal,
    Session,
    Sessions,
    actor_name,
    ensure_token,
    require,
    same,
)
from andon.pipelines.workspace import OpenWorkspace
from andon.registry.requests import Rulings
from andon.tracking.sealing import Sealer
from andon.web.feed import Feed
from andon.web.notices import Notices
from andon.web.peer import peer_uid
from andon.web.traffic import Traffic

log = logging.getLogger("andon.web")

COOKIE = "andon_session"
MOST_STREAMS = 64
FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""Headers by which proxies say that they bring the request of another."""


class Visit(msgspec.Struct):
    """One request on its way: its id, and who it comes from once that is known."""

    request_id: str
    principal: Principal | None = None
    session: Session | None = None


class State:
    """Shared by all requests of one process. Its methods are safe to call from any thread."""

    def __init__(self, ws: OpenWorkspace) -> None:
        self.ws = ws
        self.token = ensure_token(ws.layout.token)
        self.codes = LoginCodes(ws.clock)
        self.sessions = Sessions(ws.clock)
        self.owner = Principal(ws.actor(), "owner")
        self.feed = Feed(ws.store)
        self.streams = Streams(self.sessions)
        self.notices = Notices()
        self.traffic = Traffic(ws.log, ws.clock)
        self.sealer = Sealer(ws.store, ws.clock)
        self.rulings = Rulings(ws.store, ws.blobs)

    def authenticate(
        self, headers: Mapping[str, str], cookies: Mapping[str, str]
    ) -> tuple[Principal, Session | None]:
        """Who a request comes from: the token's holder, or the person of a browser session.

        Raises:
            Unauthenticated: neither came with it, or what came is not valid. A wrong token is not made good by a cookie.
        """
        if given := headers.get("authorization"):
            scheme, _, secret = given.partition(" ")
            if scheme.lower() == "bearer" and same(secret.strip(), self.token):
                return self.owner, None
            raise Unauthenticated("the token is not this workspace's", hint="it is in .andon/keys/token")
        session = self.sessions.find(cookies.get(COOKIE, ""))
        if session is None:
            raise Unauthenticated(
                "this needs a token or a login",
                hint="send 'Authorization: Bearer' and the token in .andon/keys/token, or open the link 'andon up' prints",
            )
        return session.principal, session

    def authenticate_client(self, request: Request) -> Principal:
        """Who a request of an MLflow client comes from: the holder of the token, sent as bearer or as basic password, or,
        without one, the user who runs this workspace, when the kernel says that the connection is theirs.

        Raises:
            Unauthenticated: neither.
        """
        given = request.headers.get("authorization")
        if given is not None:
            scheme, _, secret = given.partition(" ")
            if scheme.lower() == "basic":
                secret = _password(secret)
            if scheme.lower() in ("bearer", "basic") and same(secret.strip(), self.token):
                return self.owner
            raise Unauthenticated("the token is not this workspace's", hint="it is in .andon/keys/token")
        if self._is_own(request):
            return self.owner
        raise Unauthenticated(
            "this needs the workspace's token",
            hint="set MLFLOW_TRACKING_TOKEN to what is in .andon/keys/token, or MLFLOW_TRACKING_PASSWORD with any user name",
        )

    def _is_own(self, request: Request) -> bool:
        """Whether a connection without a token is of the user who runs this process; asked once for each connection.

        What comes through a proxy is somebody else's, whoever runs the proxy.
        """
        if any(name in request.headers for name in FORWARDED):
            return False
        scope = request.scope
        known: list[bool] = scope.get("andon.peer", [])
        if not known:
            client, server = scope.get("client"), scope.get("server")
            known.append(
                client is not None
                and server is not None
                and peer_uid(tuple(client), tuple(server)) == os.geteuid()
            )
        return known[0]

    def permit(self, principal: Principal, permission: Permission, path: str) -> None:
        """Let through, or refuse and put the attempt on record.

        Raises:
            Forbidden: the principal's role does not hold the permission.
        """
        try:
            require(principal, permission)
        except Forbidden:
            me = principal.actor.id
            draft = EventDraft(
                kind="access.denied", actor=me, subject=node("actor", me), at=self.ws.clock.now(),
                facts={"permission": permission.value, "path": path, "role": principal.role},
            )  # fmt: skip
            self.ws.store.write(lambda tx: tx.ledger.append(draft))
            raise

    def name_of(self, principal: Principal) -> str:
        """What people call a principal."""
        return self.ws.store.read(lambda reader: actor_name(reader, principal.actor.id))

    def close(self) -> None:
        """End all streams, so that the process can."""
        self.feed.close()


def _password(credentials: str) -> str:
    """The password of basic credentials; the user name in them is anybody's claim."""
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


class Streams:
    """The event streams that are open: counted, limited, and ended when their session is."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.count = 0

    def opened(self, stream: AsyncIterator[bytes], session: Session | None) -> AsyncIterator[bytes]:
        """A stream that counts while it is read.

        Raises:
            Unavailable: as many as may be are open.
        """
        if self.count >= MOST_STREAMS:
            raise Unavailable(f"{MOST_STREAMS} streams are open", hint="close pages that are not looked at")
        return self._counted(stream, session)

    async def _counted(
        self, stream: AsyncIterator[bytes], session: Session | None
    ) -> AsyncGenerator[bytes, None]:
        self.count += 1
        try:
            async for chunk in stream:
                if session is not None and not self._sessions.alive(session):
                    return
                yield chunk
        except AndonError as error:
            log.warning("a stream ends: %s", error)  # its reader comes back by itself
        finally:
            self.count -= 1
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()
