"""Routes: the signed file, overrides in force, and who gets which arm."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.canonical import digest_bytes
from andon.core.errors import Corrupt
from andon.core.ids import ModelVersionId, OverrideId, ReleaseId
from andon.core.routes import (
    GENERATION_STEP,
    Arm,
    EndpointRoute,
    Override,
    Role,
    RouteFile,
    decode_override,
    decode_routes,
    effective,
    encode_override,
    encode_routes,
    newer,
    pick,
    share,
)

KEY = b"k" * 32


def arm(role: Role, name: str) -> Arm:
    return Arm(
        release=ReleaseId(name), role=role, model="m", version=1, model_version=ModelVersionId(f"mv_{name}"),
        digest=digest_bytes(name.encode()),
    )  # fmt: skip


STABLE, CANDIDATE, PREVIOUS = arm("stable", "live"), arm("candidate", "new"), arm("previous", "old")
ROUTE = EndpointRoute(
    endpoint="e", epoch=1, generation=300, salt="s", arms=(STABLE, CANDIDATE, PREVIOUS), weight=0.1
)
GOLDEN = (
    '{"alg":"hmac-sha256","body":"{\\"epoch\\":1,\\"seq\\":9,\\"endpoints\\":{\\"e\\":{\\"endpoint\\":\\"e\\",\\"epoch'
    '\\":1,\\"generation\\":300,\\"salt\\":\\"s\\",\\"arms\\":[{\\"release\\":\\"live\\",\\"role\\":\\"stable\\",\\"model\\"'
    ':\\"m\\",\\"version\\":1,\\"model_version\\":\\"mv_live\\",\\"digest\\":\\"sha256:247610f4dedd4ab7247d07dbda19c'
    '81ca9817f85820742cad49d407ffae9e4ed\\"}],\\"weight\\":0.1,\\"held\\":false,\\"adopted\\":[]}},\\"format\\":\\"'
    'andon.routes/1\\"}","mac":"dae8e317c5e7399348907c343778788ebc5bdcbb5c7ee8602af0a659c7c37925"}'
)
FILE = RouteFile(epoch=1, seq=9, endpoints={"e": ROUTE})


def undo(release: str, *, ident: str = "ov_1", endpoint: str = "e", epoch: int = 1) -> Override:
    return Override(
        id=OverrideId(ident), endpoint=endpoint, epoch=epoch, generation=300, release=ReleaseId(release), actor="os:0",
        at_us=0, reason="it is wrong",
    )  # fmt: skip


def answers(route: EndpointRoute) -> tuple[str | None, str | None, float]:
    stable, candidate = route.arm("stable"), route.arm("candidate")
    return stable and stable.release, candidate and candidate.release, route.weight


def test_a_route_file_comes_back_as_it_was_signed() -> None:
    assert decode_routes(encode_routes(FILE, KEY), KEY) == FILE
    assert decode_override(encode_override(undo("new"), KEY), KEY) == undo("new")


def test_the_bytes_of_a_route_file_never_change() -> None:
    """A gateway of the last release follows the control of the next one."""
    small = RouteFile(epoch=1, seq=9, endpoints={"e": msgspec.structs.replace(ROUTE, arms=(STABLE,))})

    assert encode_routes(small, KEY).decode() == GOLDEN
    assert decode_routes(GOLDEN.encode(), KEY) == small


@given(st.data())
def test_a_changed_byte_is_noticed(draw: st.DataObject) -> None:
    data = bytearray(encode_routes(FILE, KEY))
    data[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))

    with pytest.raises(Corrupt):
        decode_routes(bytes(data), KEY)


@given(st.integers(0, 400))
def test_a_cut_file_is_noticed(length: int) -> None:
    with pytest.raises(Corrupt):
        decode_routes(encode_routes(FILE, KEY)[:length], KEY)


def test_another_workspace_s_key_counts_for_nothing() -> None:
    with pytest.raises(Corrupt, match="not written with this workspace's key"):
        decode_routes(encode_routes(FILE, b"other"), KEY)
    with pytest.raises(Corrupt, match="not written with this workspace's key"):
        decode_override(encode_override(undo("new"), b"other"), KEY)


def test_an_override_is_no_route_file_and_a_future_format_is_refused() -> None:
    with pytest.raises(Corrupt, match="route file cannot be read"):
        decode_routes(encode_override(undo("new"), KEY), KEY)
    with pytest.raises(Corrupt, match=r"'andon\.routes/2'"):
        decode_routes(encode_routes(msgspec.structs.replace(FILE, format="andon.routes/2"), KEY), KEY)
    with pytest.raises(Corrupt, match=r"'andon\.override/2'"):
        decode_override(
            encode_override(msgspec.structs.replace(undo("new"), format="andon.override/2"), KEY), KEY
        )


@pytest.mark.parametrize(
    ("epoch", "generation", "wins"),
    [(1, 301, True), (1, 300, False), (1, 299, False), (2, 100, True), (0, 900, False)],
)
def test_a_newer_epoch_wins_before_a_higher_generation(epoch: int, generation: int, wins: bool) -> None:
    assert newer(msgspec.structs.replace(ROUTE, epoch=epoch, generation=generation), ROUTE) is wins
    assert newer(ROUTE, None)


@pytest.mark.capability("E6", "I4")
def test_an_undone_candidate_gives_its_share_back_to_stable() -> None:
    route = effective(ROUTE, [undo("new")])

    assert answers(route) == ("live", None, 0.0)
    assert (route.generation, route.held) == (301, True)


@pytest.mark.capability("I7")
def test_when_stable_is_undone_the_warm_standby_answers() -> None:
    route = effective(ROUTE, [undo("live")])

    assert answers(route)[0] == "old"
    assert route.arm("previous") is None


def test_with_nothing_left_there_is_no_arm_to_pick() -> None:
    route = effective(ROUTE, [undo("live", ident="1"), undo("old", ident="2"), undo("new", ident="3")])

    assert (route.arms, pick(route, "anybody"), route.generation) == ((), None, 303)


@pytest.mark.parametrize(
    "override",
    [undo("new", epoch=0), undo("new", epoch=2), undo("new", endpoint="other")],
    ids=["older epoch", "newer epoch", "other endpoint"],
)
def test_an_override_of_another_epoch_or_endpoint_is_void(override: Override) -> None:
    assert effective(ROUTE, [override]) is ROUTE


def test_an_adopted_override_is_part_of_the_route_already() -> None:
    route = msgspec.structs.replace(ROUTE, adopted=(OverrideId("ov_1"),))

    assert effective(route, [undo("new")]) is route
    assert effective(route, [undo("new", ident="ov_2")]).generation == 301


def test_the_same_override_read_twice_counts_once() -> None:
    assert effective(ROUTE, [undo("new"), undo("new")]) == effective(ROUTE, [undo("new")])


@given(st.lists(st.sampled_from(["live", "new", "old", "gone"]), max_size=150))
def test_overrides_never_reach_the_next_published_generation(releases: list[str]) -> None:
    overrides = [undo(release, ident=str(number)) for number, release in enumerate(releases)]

    route = effective(ROUTE, overrides)

    assert ROUTE.generation <= route.generation < ROUTE.generation + GENERATION_STEP
    assert not {arm.release for arm in route.arms} & set(releases)
    assert sum(arm.role == "stable" for arm in route.arms) <= 1


@given(st.text(max_size=12), st.floats(0, 1), st.floats(0, 1))
def test_a_growing_weight_keeps_everybody_who_had_the_candidate(unit: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    before, after = (pick(msgspec.structs.replace(ROUTE, weight=weight), unit) for weight in (low, high))

    assert before is not None
    assert after is not None
    assert before.role == "stable" or after.role == "candidate"


@given(st.text(max_size=12))
def test_weights_of_nothing_and_everything_are_exact(unit: str) -> None:
    assert pick(msgspec.structs.replace(ROUTE, weight=0.0), unit) == STABLE
    assert pick(msgspec.structs.replace(ROUTE, weight=1.0), unit) == CANDIDATE


def test_without_a_candidate_stable_answers_whatever_the_weight() -> None:
    assert pick(msgspec.structs.replace(ROUTE, arms=(STABLE, PREVIOUS), weight=1.0), "u") == STABLE


def test_shares_never_change() -> None:
    """Who once had the candidate keeps it over releases of Andon too."""
    assert share("s", "customer-1") == int.from_bytes(bytes.fromhex("f67ed550b9759c")) / 2**56


@pytest.mark.parametrize("salt", ["s", "", "0f3a", "ü"])
def test_shares_are_uniform(salt: str) -> None:
    """A fixed sample of 20,000 units; each of the eight comparisons would fail once in a million by chance."""
    from scipy.stats import chisquare, kstest

    shares = [share(salt, f"customer-{number}") for number in range(20_000)]
    tenths = [sum(int(10 * value) == tenth for value in shares) for tenth in range(10)]

    assert min(shares) >= 0.0
    assert max(shares) < 1.0
    assert kstest(shares, "uniform").pvalue > 1e-6
    assert chisquare(tenths).pvalue > 1e-6


def test_another_salt_shuffles_anew() -> None:
    """Who is first for one candidate is not first for the next: the two quarters are independent."""
    from scipy.stats import chi2_contingency

    cells = [[0] * 4 for _ in range(4)]
    for number in range(20_000):
        cells[int(4 * share("one", str(number)))][int(4 * share("two", str(number)))] += 1

    assert chi2_contingency(cells).pvalue > 1e-6
