"""Who gets in: the token file, login codes, sessions, roles, and actors who are written down once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from andon.core.errors import Forbidden, Invalid
from andon.core.ids import node
from andon.governance.access import (
    CODE_TTL_S,
    MOST_CODES,
    ROLES,
    SESSION_TTL_S,
    LoginCodes,
    Permission,
    Principal,
    Sessions,
    actor_name,
    ensure_actor,
    ensure_token,
    read_token,
    require,
)
from tests.web.world import World, opened


class Clock:
    """A clock that a test winds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic_s(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def principal(empty: World) -> Principal:
    return Principal(empty.person, "owner")


@pytest.fixture
def empty(tmp_path: Path):
    with opened(tmp_path) as world:
        yield world


def test_the_token_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "token"

    token = ensure_token(path)

    assert token.startswith("andon_")
    assert len(token) >= 6 + 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_token(path) == token
    assert [entry.name for entry in tmp_path.iterdir()] == ["token"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o700])
def test_a_token_that_others_may_have_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    ensure_token(path)
    path.chmod(mode)

    with pytest.raises(Forbidden, match=f"mode 0{mode:o}"):
        ensure_token(path)


def test_a_token_behind_a_link_is_refused(tmp_path: Path) -> None:
    ensure_token(tmp_path / "real")
    (tmp_path / "token").symlink_to(tmp_path / "real")

    with pytest.raises(Forbidden, match="cannot be opened"):
        read_token(tmp_path / "token")


@pytest.mark.parametrize("text", ["", "andon_", "andon_short", "hello" * 10])
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(Forbidden, match="holds no token"):
        read_token(path)


def test_a_login_code_works_once(clock: Clock) -> None:
    codes = LoginCodes(clock)
    code = codes.mint("viewer")

    assert [codes.redeem(code), codes.redeem(code)] == ["viewer", None]


def test_a_login_code_ends_after_ten_minutes(clock: Clock) -> None:
    codes = LoginCodes(clock)
    early, late = codes.mint(), codes.mint()

    clock.seconds = CODE_TTL_S - 1
    assert codes.redeem(early) == "owner"
    clock.seconds = CODE_TTL_S
    assert codes.redeem(late) is None


def test_only_so_many_login_codes_wait(clock: Clock) -> None:
    codes = LoginCodes(clock)
    minted = [codes.mint() for _ in range(MOST_CODES + 1)]

    assert codes.redeem(minted[0]) is None
    assert codes.redeem(minted[1]) == "owner"


def test_a_code_opens_no_role_that_is_not_there(clock: Clock) -> None:
    with pytest.raises(Invalid, match="'root' is not a role"):
        LoginCodes(clock).mint("root")


def test_a_session_is_found_by_its_cookie_until_it_is_closed(clock: Clock, principal: Principal) -> None:
    sessions = Sessions(clock)
    cookie = sessions.open(principal)
    session = sessions.find(cookie)

    assert session is not None
    assert session.principal == principal
    assert sessions.alive(session)
    sessions.close(session)
    assert sessions.find(cookie) is None
    assert not sessions.alive(session)


def test_a_session_ends_by_itself(clock: Clock, principal: Principal) -> None:
    sessions = Sessions(clock)
    cookie = sessions.open(principal)

    clock.seconds = SESSION_TTL_S

    assert sessions.find(cookie) is None


def test_a_cookie_with_another_signature_or_of_another_process_opens_nothing(
    clock: Clock, principal: Principal
) -> None:
    sessions, others = Sessions(clock), Sessions(clock)
    cookie = sessions.open(principal)
    ident, _, mac = cookie.partition(".")

    assert sessions.find(f"{ident}.{'0' * len(mac)}") is None
    assert sessions.find(ident) is None
    assert sessions.find("") is None
    assert others.find(cookie) is None


def test_what_a_role_does_not_hold_is_refused(principal: Principal) -> None:
    viewer = Principal(principal.actor, "viewer")
    unknown = Principal(principal.actor, "nobody")

    require(viewer, Permission.READ)
    with pytest.raises(Forbidden, match="the role 'viewer' may not undo"):
        require(viewer, Permission.UNDO)
    assert not any(unknown.may(permission) for permission in Permission)


def test_an_operator_undoes_and_does_not_release() -> None:
    assert Permission.UNDO in ROLES["operator"]
    assert Permission.RELEASE not in ROLES["operator"]
    assert ROLES["owner"] == frozenset(Permission)


def test_an_actor_is_written_down_once_with_a_name_that_can_be_erased(empty: World) -> None:
    at = empty.ws.clock.now()

    first = empty.ws.store.write(lambda tx: ensure_actor(tx, "os:4242", "person", "Ann <b>", at))
    again = empty.ws.store.write(lambda tx: ensure_actor(tx, "os:4242", "person", "another name", at))

    assert again == first
    events = empty.ws.store.read(lambda reader: reader.ledger.latest(subject=node("actor", first.id)))
    assert [event.kind for event in events] == ["actor.created"]
    assert empty.ws.store.read(lambda reader: actor_name(reader, first.id)) == "Ann <b>"
    assert empty.ws.store.read(lambda reader: actor_name(reader, "act_andon")) == "Andon"
    empty.ws.store.write(lambda tx: tx.personal.remove(node("actor", first.id)))
    assert empty.ws.store.read(lambda reader: actor_name(reader, first.id)) == first.id
