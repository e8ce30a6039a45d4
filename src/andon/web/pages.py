"""The pages and what their buttons do. Each works as a plain form without script, and as a fragment with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
from anyio.to_thread import run_sync
from starlette.responses import HTMLResponse, RedirectResponse, Response

from andon.core.errors import Invalid, NotFound, Unauthenticated
from andon.core.ids import ReleaseId, node
from andon.governance.access import SESSION_TTL_S, Permission, Principal, same
from andon.web.endpoints import ANYBODY, Call, Endpoint
from andon.web.feed import KEEPALIVE, KEEPALIVE_S, message
from andon.web.notices import Notice
from andon.web.state import COOKIE, State
from andon.web.ui.history import model_view
from andon.web.ui.now import now_view
from andon.web.ui.render import ms, page, statics
from andon.web.ui.views import NowView
from andon.web.ui.words import Names

REFRESH_S = 1.0
"""Counts and ages on an open page are at most this old while the ledger stands still."""
FORM_LIMIT = 8 * 1024
_WEEK = 7 * 24 * 3600


class LoginQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A login code, when the link that was printed is opened."""

    code: str | None = None


class ModelQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which page of a model's past: the release that ended the one before."""

    after: Annotated[str, msgspec.Meta(max_length=200)] | None = None


class Probe(msgspec.Struct, frozen=True):
    """The answer of a probe."""

    status: str


# --- the Now page ---


def now(call: Call) -> Response:
    notice = call.state.notices.take(call.session)
    return HTMLResponse(page("now.html", now=_view(call.state), who=_name(call), notice=notice))


def now_json(call: Call) -> NowView:
    return _view(call.state)


def now_stream(call: Call) -> AsyncIterator[bytes]:
    return _now_stream(call.state, call.who)


async def _now_stream(state: State, principal: Principal) -> AsyncIterator[bytes]:
    """The page's content whenever it says something else than before."""
    sent, quiet_s = "", 0.0
    with state.feed.listener():
        while not state.feed.closing:
            view, html = await run_sync(_fragment, state, principal)
            if html != sent:
                yield message(html)
                sent, quiet_s = html, 0.0
            elif quiet_s >= KEEPALIVE_S:
                yield KEEPALIVE
                quiet_s = 0.0
            quiet_s += REFRESH_S
            await state.feed.after(view.seq, limit_s=REFRESH_S)


def _fragment(state: State, principal: Principal) -> tuple[NowView, str]:
    view = _view(state)
    return view, page("_now.html", now=view, who=state.name_of(principal))


def _view(state: State) -> NowView:
    return now_view(state.ws, state.traffic)


def _name(call: Call) -> str:
    return call.state.name_of(call.who)


# --- a model's page ---


def model(call: Call) -> Response:
    view = model_view(call.state.ws, call.path["model"], call.query.after)
    return HTMLResponse(page("model.html", model=view, who=_name(call)))


# --- what buttons do ---


def undo(call: Call) -> Response:
    form = read_form(call.body)
    wanted = ReleaseId(form["release"]) if form.get("release") else None
    done = call.state.ws.undo(
        call.path["endpoint"], call.actor.id, reason=form.get("reason", ""), release=wanted
    )
    gone, back = call.state.ws.store.read(
        lambda reader: [
            Names(reader).node(node("release", ident)) if ident else "nothing"
            for ident in (done.release, done.back_to)
        ]
    )
    lines = [f"All requests to {done.endpoint} go to {back}. On record: {_name(call)}."]
    if done.gateways:
        lines.append(f"Confirmed by {', '.join(done.gateways)} after {ms(done.seconds * 1000)}.")
    if done.unreached:
        lines.append(
            f"Not confirmed by {', '.join(done.unreached)}: they take the new route when they are back."
        )
    return _acted(call, Notice("bad" if done.unreached else "held", f"Undone: {gone}", tuple(lines)))


def resume(call: Call) -> Response:
    row = call.state.ws.resume(call.path["endpoint"], call.actor.id)
    return _acted(
        call, Notice("good", f"Resumed: releases to {row.id} may move again", (f"On record: {_name(call)}.",))
    )


def _acted(call: Call, notice: Notice) -> Response:
    if call.request.headers.get("hx-request"):
        return HTMLResponse(page("_notice.html", notice=notice))
    if call.session is not None:
        call.state.notices.put(call.session, notice)
    return RedirectResponse("/", 303)


# --- logging in and out ---


def login(call: Call) -> Response:
    """The login form; or, with a code, a session. The code in the address works once."""
    if call.query.code is None:
        if call.session is not None:
            return RedirectResponse("/", 303)
        raise Unauthenticated("you are not logged in")
    return _welcome(call, call.state.codes.redeem(call.query.code))


def login_form(call: Call) -> Response:
    secret = read_form(call.body).get("secret", "").strip()
    role = "owner" if same(secret, call.state.token) else call.state.codes.redeem(secret)
    return _welcome(call, role)


def _welcome(call: Call, role: str | None) -> Response:
    if role is None:
        raise Unauthenticated("this code is unknown, was used, or is older than ten minutes")
    response = HTMLResponse(page("welcome.html"))
    cookie = call.state.sessions.open(Principal(call.state.owner.actor, role))
    response.set_cookie(
        COOKIE, cookie, max_age=int(SESSION_TTL_S), path="/", httponly=True, samesite="strict",
        secure=call.request.url.scheme == "https",
    )  # fmt: skip
    return response


def logout(call: Call) -> Response:
    if call.session is not None:
        call.state.sessions.close(call.session)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


# --- probes and files ---


def health(_: Call) -> Probe:
    """The process answers."""
    return Probe("ok")


def ready(call: Call) -> Probe:
    """The process answers and the store does."""
    call.state.ws.store.read(lambda reader: reader.ledger.head())
    return Probe("ready")


def static_file(call: Call) -> Response:
    found = statics().get(call.path["name"])
    if found is None:
        raise NotFound("there is no such file")
    hashed = found.address == f"/static/{call.path['name']}"
    kept = f"public, max-age={_WEEK}, immutable" if hashed else "no-cache"
    return Response(found.data, headers={"Content-Type": found.content_type, "Cache-Control": kept})


def read_form(body: bytes) -> dict[str, str]:
    """The fields of a form that was sent as browsers do.

    Raises:
        Invalid: it is not UTF-8, has too many fields, or one twice.

    >>> read_form(b"release=rel_1&reason=too+slow")
    {'release': 'rel_1', 'reason': 'too slow'}
    """
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=16, strict_parsing=bool(body))
    except ValueError:
        raise Invalid("the form cannot be read", hint="send it as a browser does") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Invalid("the form has a field twice", hint="send it as a browser does")
    if len(fields.get("reason", "")) > 1000:
        raise Invalid("the reason is longer than 1,000 characters", hint="say it shorter")
    return fields


READ = Permission.READ
ENDPOINTS = (
    Endpoint(method="GET", path="/", permission=READ, handler=now, summary="What is live."),
    Endpoint(method="GET", path="/now.json", permission=READ, handler=now_json, returns=NowView,
             summary="What is live, for programs."),
    Endpoint(method="GET", path="/now/stream", permission=READ, stream=now_stream,
             summary="What is live, as it changes."),
    Endpoint(method="GET", path="/models/{model}", permission=READ, handler=model, query=ModelQuery,
             summary="What was live of a model when, by whom and why."),
    Endpoint(method="POST", path="/endpoints/{endpoint}/undo", permission=Permission.UNDO, handler=undo, body=bytes,
             limit=FORM_LIMIT, summary="The Undo button."),
    Endpoint(method="POST", path="/endpoints/{endpoint}/resume", permission=Permission.RELEASE, handler=resume,
             body=bytes, limit=FORM_LIMIT, summary="The Resume button."),
    Endpoint(method="GET", path="/login", permission=ANYBODY, handler=login, query=LoginQuery, summary="Log in."),
    Endpoint(method="POST", path="/login", permission=ANYBODY, handler=login_form, body=bytes, limit=FORM_LIMIT,
             summary="Log in with a code or the token."),
    Endpoint(method="POST", path="/logout", permission=READ, handler=logout, body=bytes, limit=FORM_LIMIT,
             summary="Log out."),
    Endpoint(method="GET", path="/health", permission=ANYBODY, handler=health, returns=Probe,
             summary="Whether the process answers."),
    Endpoint(method="GET", path="/ready", permission=ANYBODY, handler=ready, returns=Probe,
             summary="Whether the process and its store answer."),
    Endpoint(method="GET", path="/static/{name:path}", permission=ANYBODY, handler=static_file,
             summary="Styles, scripts and pictures of the pages."),
)  # fmt: skip
