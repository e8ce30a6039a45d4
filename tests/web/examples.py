"""Now views as a day brings them: each state the page can be in, made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from andon.core.ids import Node
from andon.web.traffic import Answers, Slot
from andon.web.ui.views import (
    AlertView,
    ArmView,
    EndpointView,
    GuardView,
    LastChange,
    NowView,
    RolloutView,
    RunView,
    UndoOffer,
    WaitingView,
)
from andon.web.ui.words import Change

AT = datetime(2026, 3, 4, 12, 30, 15, tzinfo=UTC)


def ago(**time: int) -> datetime:
    return AT - timedelta(**time)


def answers(requests: int, failures: int = 0) -> Answers:
    if not requests:
        return Answers(requests=0, failures=0)
    return Answers(
        requests=requests, failures=failures, failed_low=failures / requests / 2,
        failed_high=min(1.0, (failures + 4) / (requests + 4)), p50_ms=0.12, p99_ms=0.84,
    )  # fmt: skip


SLOTS = tuple(Slot(n * 10, 60 + (n * 37) % 20, 0) for n in reversed(range(30)))
QUIET_SLOTS = tuple(Slot(n * 10, 0, 0) for n in reversed(range(30)))
CHANGE = LastChange(
    what="flights v2 live", who="line flights", at=ago(minutes=34), why="because of falling performance", reason="",
    gate="auc 0.703 >= 0.65; auc vs live +0.021 [+0.008, +0.034] >= -0.005 absolute, n = 3,112", gate_passed=True,
    release="rel_2",
)  # fmt: skip
STABLE = ArmView(
    role="stable", label="v2", model="flights", version=2, release="rel_2", share=1.0, since=ago(minutes=34),
    answers=answers(2104),
)  # fmt: skip
CANDIDATE = ArmView(
    role="candidate", label="v3", model="flights", version=3, release="rel_3", share=0.1, since=ago(minutes=2),
    answers=answers(211, 9),
)  # fmt: skip
ENDPOINT = EndpointView(
    name="flights", line="flights", level="good", state="Healthy", health="2,104 requests in 5 min, 0 failed.",
    generation=700, arms=(STABLE,), answers=answers(2104), gone=answers(0), slots=SLOTS, change=CHANGE, held=False,
    undo=UndoOffer(effect="100% to v1", release="rel_2", gone="v2", back_to="v1"),
    call="curl http://127.0.0.1:8080/predict/flights \\\n  -H 'Content-Type: application/json' \\\n"
    "  -d '{\"carrier\":\"UA\",\"origin\":\"EWR\",\"dest\":\"IAH\",\"distance\":1400,\"hour\":5}'",
    alerts=0,
)  # fmt: skip
RUNS = (
    RunView(id="r3", label="9f0e1d2c", line="flights", state="finished", tone="good", who="line flights",
            why="because of falling performance", result="flights v3, AUC 0.718; eligible", at=ago(minutes=4)),
    RunView(id="r2", label="5a6b7c8d", line="flights", state="finished", tone="watch", who="ann", why="by hand",
            result="flights v2, AUC 0.703; rejected: auc 0.498 < 0.65", at=ago(hours=2)),
    RunView(id="r1", label="1a2b3c4d", line="flights", state="blocked", tone="bad", who="line flights",
            why="because of new data",
            result="dataset 'flights' version 3 breaks its contract: 212 rows have distance < 0", at=ago(days=1)),
)  # fmt: skip


def change(seq: int, minutes: int, tone: str, who: str, what: str) -> Change:
    return Change(
        seq=seq,
        at=ago(minutes=minutes),
        kind="release.live",
        tone=tone,
        who=who,
        what=what,
        why="late arrivals look wrong" if tone == "bad" else "",
        subject=Node("release:rel_2"),
    )  # type: ignore[arg-type]


CHANGES = (
    change(212, 2, "plain", "Andon", "gave flights v3 10 % of requests"),
    change(208, 4, "plain", "line flights", "asked for the release of flights v3"),
    change(204, 5, "good", "line flights", "found flights v3 fit for release: it passed its gates"),
    change(198, 9, "bad", "Andon", "raised an alert: auc of flights"),
    change(160, 34, "good", "Andon", "made flights v2 live"),
    change(150, 36, "watch", "line flights", "rejected flights v4: it failed its gates"),
)
HEALTHY = NowView(
    workspace="nyc", seq=212, at=AT, level="good", headline="flights is healthy",
    summary="2,104 requests in the last 5 minutes, 0 failed; no alert open.", gateways="1 gateway answers.",
    gateways_ok=True, endpoints=(ENDPOINT,), more=0, rollouts=(), waiting=(), alerts=(), alerts_open=0, runs=RUNS,
    changes=CHANGES, lines=("flights",),
)  # fmt: skip
ROLLOUT = RolloutView(
    release="rel_3", label="flights v3", endpoint="flights", state="canary", steps=(1, 10, 50, 100), step=1,
    since=ago(minutes=2), because="104 requests, no evidence of harm", candidate=answers(211, 9), stable=answers(1893),
    guards=(
        GuardView(name="failures", stable=1893, stable_failed=0, candidate=211, candidate_failed=9, harm=1.1,
                  noninferior=-0.4),
        GuardView(name="wrong", stable=1702, stable_failed=401, candidate=188, candidate_failed=41, harm=-0.2,
                  noninferior=7.2),
    ),
    decided="sha256:00",
)  # fmt: skip
ALERT = AlertView(
    id="al_1", line="flights", monitor="auc", subject="flights v2", since=ago(minutes=9),
    summary="AUC 0.612 [0.588, 0.636] over 7d on 2,310 labelled predictions; 0.703 [0.689, 0.717] when it was judged",
)  # fmt: skip
ROLLING = replace(
    HEALTHY,
    level="watch", headline="flights needs a look", rollouts=(ROLLOUT,), alerts=(ALERT,), alerts_open=1,
    summary="2,104 requests in the last 5 minutes, 9 failed; 1 rollout under way; 1 alert open.",
    endpoints=(
        replace(
            ENDPOINT, level="watch", state="Some fail", health="2,104 requests in 5 min, 9 failed.",
            answers=answers(2104, 9), arms=(replace(STABLE, share=0.9), CANDIDATE), alerts=1,
            slots=(*SLOTS[:-2], Slot(10, 70, 5), Slot(0, 30, 4)),
            undo=UndoOffer(effect="100% to v2", release="rel_3", gone="v3", back_to="v2"),
            change=replace(CHANGE, what="flights v3 rolling out", at=ago(minutes=2)), gone=answers(900, 3),
        ),
    ),
    waiting=(
        WaitingView(release="rel_9", label="churn v7", endpoint="churn", state="waiting", since=ago(hours=3), who="ann",
                    approvals=0, needed=1),
    ),
)  # fmt: skip
HELD = replace(
    HEALTHY,
    level="held", headline="flights is held after an undo",
    endpoints=(
        replace(
            ENDPOINT, level="held", state="Held", held=True, undo=None,
            arms=(replace(STABLE, label="v1", version=1, release="rel_1", since=ago(seconds=20)),),
            change=replace(CHANGE, what="flights v2 undone", who="ann", at=ago(seconds=20), reason="late arrivals look wrong"),
        ),
    ),
)  # fmt: skip
FAILING = replace(
    HEALTHY,
    level="bad", headline="flights is failing",
    summary="2,104 requests in the last 5 minutes, 310 failed; no alert open.",
    gateways="1 of 2 gateways answer; silent: gateway-1.", gateways_ok=False,
    endpoints=(
        replace(
            ENDPOINT, level="bad", state="Failing", health="2,104 requests in 5 min, 310 failed.",
            answers=answers(2104, 310), arms=(replace(STABLE, answers=answers(2104, 310)),),
            slots=(*SLOTS[:-3], Slot(20, 70, 20), Slot(10, 70, 50), Slot(0, 30, 28)),
        ),
        replace(
            ENDPOINT, name="churn", line="churn", level="quiet", state="Quiet", answers=answers(0), change=None, undo=None,
            health="No requests in the last 5 minutes.", slots=QUIET_SLOTS,
            arms=(replace(STABLE, model="churn", label="v7", answers=answers(0)),),
        ),
    ),
)  # fmt: skip
DOWN = replace(
    FAILING,
    endpoints=(
        replace(ENDPOINT, level="bad", state="Down", health="No release answers: requests get 503.", arms=(), undo=None,
                answers=answers(0), slots=QUIET_SLOTS),
    ),
)  # fmt: skip
EMPTY = replace(
    HEALTHY,
    level="quiet", headline="Nothing is live yet", endpoints=(), runs=(), changes=(), lines=(), seq=1,
    summary="Start a line; its first model that passes its gates goes live here.",
    gateways="No gateway runs: start one with 'andon up'.", gateways_ok=False,
)  # fmt: skip
WAITING = replace(
    EMPTY, lines=("flights",), runs=(replace(RUNS[0], state="running", tone="watch", result=""),)
)

VIEWS: Mapping[str, NowView] = {
    "healthy": HEALTHY, "rolling": ROLLING, "held": HELD, "failing": FAILING, "down": DOWN, "empty": EMPTY,
    "waiting": WAITING,
}  # fmt: skip
