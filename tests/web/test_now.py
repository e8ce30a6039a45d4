"""The page's decisions, each a function of values: health, the one sentence, what an undo would do, and words for events."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from andon.core.clock import SystemClock
from andon.core.events import KINDS
from andon.core.ids import ModelVersionId, ReleaseId, node
from andon.core.routes import Arm, EndpointRoute, Role
from andon.pipelines.gateways import GatewayState
from andon.store.files import write_atomic
from andon.testing.rows import tracked_run
from andon.testing.worlds import seed_world
from andon.web.traffic import Answers, Traffic
from andon.web.ui.now import gateway_words, health, now_view, overall, undo_offer
from andon.web.ui.words import PHRASES, QUIET, Names, describe
from tests.web.examples import ENDPOINT, ROLLOUT
from tests.web.world import ENDPOINT as FLIGHTS
from tests.web.world import POLICY, World, fill, opened

FINE = Answers(requests=1000, failures=0, failed_low=0.0, failed_high=0.004, p50_ms=0.1, p99_ms=0.2)
FEW_FAIL = replace(FINE, failures=3, failed_low=0.001, failed_high=0.009)
MANY_FAIL = replace(FINE, failures=40, failed_low=0.03, failed_high=0.054)
NONE = Answers(requests=0, failures=0)


@pytest.mark.parametrize(
    ("answers", "answering", "held", "alerts", "want"),
    [
        (FINE, True, False, 0, ("good", "Healthy")),
        (FINE, True, False, 1, ("watch", "Alert")),
        (FEW_FAIL, True, False, 0, ("watch", "Some fail")),
        (FEW_FAIL, True, True, 0, ("held", "Held")),
        (MANY_FAIL, True, False, 0, ("bad", "Failing")),
        (MANY_FAIL, True, True, 1, ("bad", "Failing")),
        (NONE, True, False, 0, ("quiet", "Quiet")),
        (NONE, True, False, 1, ("watch", "Alert")),
        (NONE, True, True, 0, ("held", "Held")),
        (FINE, False, False, 0, ("bad", "Down")),
    ],
)
def test_health_is_told_in_a_word(
    answers: Answers, answering: bool, held: bool, alerts: int, want: tuple[str, str]
) -> None:
    assert health(answers, NONE, answering=answering, held=held, alerts=alerts)[:2] == want


def test_failures_of_a_release_that_is_gone_do_not_count_against_what_answers_now() -> None:
    assert health(FINE, MANY_FAIL, answering=True, held=False, alerts=0)[:2] == ("good", "Healthy")
    assert health(NONE, MANY_FAIL, answering=True, held=False, alerts=0) == (
        "quiet", "Quiet", "No requests since the last change.",
    )  # fmt: skip


def test_the_worst_endpoint_speaks_first() -> None:
    ends = {
        level: replace(ENDPOINT, name=level, level=level)
        for level in ("good", "quiet", "watch", "held", "bad")
    }
    good, quiet, watch, held, bad = ends.values()

    def said(*endpoints: object) -> tuple[str, str]:
        return overall(endpoints, (), 0)[:2]  # type: ignore[arg-type]

    assert said() == ("quiet", "Nothing is live yet")
    assert said(good) == ("good", "good is healthy")
    assert said(good, quiet) == ("good", "All 2 endpoints are healthy")
    assert said(quiet, quiet) == ("quiet", "Live, and nobody asks")
    assert said(good, watch) == ("watch", "watch needs a look")
    assert said(good, watch, held) == ("held", "held is held after an undo")
    assert said(bad, held, bad) == ("bad", "2 endpoints are failing")


def test_the_sentence_counts_rollouts_and_alerts() -> None:
    assert overall((ENDPOINT,), (ROLLOUT,), 2)[2] == (
        "2,104 requests in the last 5 minutes, 0 failed; 1 rollout under way; 2 alerts open."
    )


def gateway(name: str, *, reachable: bool = True) -> GatewayState:
    return GatewayState(name=name, reachable=reachable)


def test_silent_gateways_are_named() -> None:
    one, two, lost = gateway("gateway-0"), gateway("gateway-1"), gateway("gateway-2", reachable=False)

    assert gateway_words([], "", caught_up=True) == ("No gateway runs: start one with 'andon up'.", False)
    assert gateway_words([one], "", caught_up=True) == ("1 gateway answers.", True)
    assert gateway_words([one, two], "", caught_up=False) == (
        "All 2 gateways answer. Counts are still being read.",
        True,
    )
    assert gateway_words([one, two, lost], "", caught_up=True) == (
        "2 of 3 gateways answer; silent: gateway-2.",
        False,
    )
    assert gateway_words([one], "The route file cannot be used.", caught_up=True) == (
        "The route file cannot be used.",
        False,
    )


def arm(role: Role, version: int, model: str = FLIGHTS) -> Arm:
    return Arm(
        release=ReleaseId(f"rel_{version}"), role=role, model=model, version=version,
        model_version=ModelVersionId(f"mv_{version}"), digest=POLICY,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arms", "want"),
    [
        ([arm("stable", 2), arm("previous", 1)], ("100% to v1", "rel_2", "v2")),
        ([arm("stable", 2), arm("candidate", 3), arm("previous", 1)], ("100% to v2", "rel_3", "v3")),
        ([arm("stable", 2), arm("previous", 1, "weather")], ("100% to weather v1", "rel_2", "v2")),
        ([arm("stable", 2)], None),
        ([arm("candidate", 3)], None),
        ([], None),
    ],
)
def test_the_button_says_what_an_undo_would_do(arms: list[Arm], want: tuple[str, str, str] | None) -> None:
    offer = undo_offer(
        EndpointRoute(endpoint=FLIGHTS, epoch=1, generation=1, salt="s", arms=tuple(arms), weight=0.1)
    )

    assert (None if offer is None else (offer.effect, offer.release, offer.gone)) == want


def test_every_kind_of_event_has_words() -> None:
    assert set(PHRASES) == set(KINDS)
    assert set(KINDS) > QUIET


def test_every_event_becomes_a_sentence_of_who_and_what(world: World) -> None:
    subjects = {
        "line": "line:flights", "dataset": f"dataset_version:{POLICY}", "run": f"run:{1:032x}",
        "model_version": "model_version:mv_1",
        "verdict": "verdict:vd_1", "release": "release:rel_1", "rollout": "rollout:ro_1", "route": "endpoint:flights",
        "trigger": "trigger:tr_1", "actor": f"actor:{world.person.id}",
    }  # fmt: skip
    for kind in sorted(KINDS):
        subject = subjects.get(kind.partition(".")[0], "line:flights")
        facts = {"role": "viewer", "permission": "undo", "alias": "champion", "stage": "Staging"}
        world.event(kind, node(*subject.split(":", 1)), percent=10, number=1, **facts)

    found = world.ws.store.read(
        lambda reader: [describe(event, Names(reader)) for event in reader.ledger.latest(limit=len(KINDS))]
    )

    said = {change.kind: change.what for change in found}
    assert {change.who for change in found} == {"line flights"}
    assert said["release.live"] == "made flights v1 live"
    assert said["run.sealed"] == "finished run 00000001 of flights"
    assert said["dataset.blocked"] == "stored flights@1: it broke its contract"
    assert said["trigger.fired"] == "asked for a run of flights, by hand"
    assert not [what for what in said.values() if "?" in what or "{" in what]


def test_a_refused_release_says_why(world: World) -> None:
    def refused(tx) -> None:
        row = tx.releases.get("rel_1")
        tx.releases.change(replace(row, because="auc 0.498 is not >= 0.65"))

    world.ws.store.write(refused)
    world.event("release.refused", node("release", "rel_1"))

    found = world.ws.store.read(lambda reader: describe(reader.ledger.latest(limit=1)[0], Names(reader)))

    assert (found.what, found.why) == ("refused flights v1", "auc 0.498 is not >= 0.65")


def test_what_is_gone_is_called_by_its_id(world: World) -> None:
    assert world.ws.store.read(lambda reader: Names(reader).node(node("release", "rel_gone"))) == "rel_gone"
    assert world.ws.store.read(lambda reader: Names(reader).node(node("comet", "halley"))) == "halley"


def test_a_clients_run_is_called_by_its_experiment(world: World) -> None:
    run = replace(tracked_run("f" * 32), actor=world.person.id)
    world.ws.store.write(lambda tx: tx.runs.add(run))

    view = now_view(world.ws, Traffic(world.ws.log, SystemClock()))
    named = world.ws.store.read(
        lambda reader: [
            Names(reader).node(node(kind, ident))
            for kind, ident in (("run", run.id), ("experiment", "0"), ("model", "flights"))
        ]
    )

    assert (view.runs[0].line, view.runs[0].why, view.runs[0].state) == (
        "experiment Default",
        "by a client",
        "running",
    )
    assert named == ["run ffffffff of experiment Default", "experiment Default", "model flights"]


# --- traffic ---


def test_traffic_is_counted_by_release_and_time(world: World) -> None:
    traffic = Traffic(world.ws.log, SystemClock())
    world.asked(3, 50, failed=5, minutes_ago=2)
    world.asked(2, 9, minutes_ago=6)

    assert traffic.refresh()

    both, stable, candidate = (traffic.answers(FLIGHTS, which) for which in (None, ["rel_2"], {"rel_3"}))
    slots = traffic.slots(FLIGHTS)
    assert [(each.requests, each.failures) for each in (both, stable, candidate)] == [
        (450, 5),
        (400, 0),
        (50, 5),
    ]
    assert candidate.failed_low is not None
    assert candidate.failed_high is not None
    assert 0.03 < candidate.failed_low < 0.1 < candidate.failed_high < 0.25
    assert stable.p99_ms == pytest.approx(0.12, rel=0.19)
    assert [slot.ago_s for slot in slots] == list(range(290, -1, -10))
    assert sum(slot.requests for slot in slots) == 450
    assert next(slot.ago_s for slot in slots if slot.failures) in (110, 120)
    assert traffic.releases(FLIGHTS) == {"rel_2", "rel_3"}
    assert traffic.answers("nothing") == NONE


def test_traffic_is_read_on_and_nothing_is_counted_twice(world: World) -> None:
    traffic = Traffic(world.ws.log, SystemClock())
    for _ in range(3):
        traffic.refresh()
        world.asked(2, 10)

    traffic.refresh()

    assert traffic.answers(FLIGHTS).requests == 430


class Late(SystemClock):
    """A clock that is a while ahead."""

    def __init__(self, minutes: int) -> None:
        self.ahead = timedelta(minutes=minutes)

    def now(self):
        return super().now() + self.ahead


def test_what_is_older_than_five_minutes_does_not_count_as_now(world: World) -> None:
    traffic = Traffic(world.ws.log, Late(6))

    traffic.refresh()

    assert traffic.answers(FLIGHTS) == NONE
    assert sum(slot.requests for slot in traffic.slots(FLIGHTS)) == 0


# --- the whole view ---


def test_the_view_of_a_canary_shows_both_arms_and_the_evidence(tmp_path) -> None:
    with opened(tmp_path) as world:
        fill(world, candidate=True)

        view = now_view(world.ws, Traffic(world.ws.log, world.ws.clock))

    endpoint, rollout = view.endpoints[0], view.rollouts[0]
    assert [(arm.role, arm.label, arm.share, arm.answers.requests) for arm in endpoint.arms] == [
        ("stable", "v2", 0.9, 400), ("candidate", "v3", 0.1, 40),
    ]  # fmt: skip
    assert (rollout.label, rollout.steps, rollout.step, rollout.guards[0].candidate) == (
        "flights v3",
        (1, 10, 50, 100),
        1,
        104,
    )
    assert endpoint.change is not None
    assert (endpoint.change.what, endpoint.change.who) == ("flights v3 rolling out", "line flights")
    assert endpoint.change.gate == "auc 0.730 >= 0.65"


def test_the_view_of_a_world_that_went_around_twice_names_everything(tmp_path) -> None:
    with opened(tmp_path) as world:
        seed_world(world.ws.store, world.ws.clock, generations=2, blobs=world.ws.blobs)

        view = now_view(world.ws, Traffic(world.ws.log, world.ws.clock))

    endpoint = view.endpoints[0]
    assert [(arm.model, arm.version, arm.share) for arm in endpoint.arms] == [("delays", 2, 1.0)]
    assert endpoint.undo is not None
    assert (endpoint.undo.effect, endpoint.alerts) == ("100% to v1", 1)
    assert endpoint.change is not None
    assert (endpoint.change.what, endpoint.change.why) == ("delays v2 live", "because of input drift")
    assert "stored flights@2: it passed its contract" in {change.what for change in view.changes}
    assert not [change.what for change in view.changes if "?" in change.what or "_" in change.what]


def test_the_view_of_an_empty_workspace_offers_a_beginning(tmp_path) -> None:
    with opened(tmp_path) as world:
        view = now_view(world.ws, Traffic(world.ws.log, world.ws.clock))

    assert (view.headline, view.endpoints, view.lines) == ("Nothing is live yet", (), ())


def test_a_damaged_route_file_is_said_and_the_page_shows_what_should_be(world: World) -> None:
    write_atomic(world.ws.layout.routes, b"{broken")

    view = now_view(world.ws, Traffic(world.ws.log, world.ws.clock))

    assert "route file" in view.gateways
    assert view.gateways_ok is False
    assert view.endpoints[0].arms[0].version == 2


def test_a_route_that_was_not_published_is_said_and_undo_acts_on_what_is_wanted(world: World) -> None:
    def moved(tx) -> None:
        row = tx.routes.get(FLIGHTS)
        at = world.ws.clock.now() - timedelta(seconds=10)
        tx.routes.change(
            replace(
                row, generation=200, candidate=ReleaseId("rel_2"), stable=ReleaseId("rel_1"), changed_at=at
            )
        )

    world.ws.store.write(moved)

    view = now_view(world.ws, Traffic(world.ws.log, world.ws.clock))

    endpoint = view.endpoints[0]
    assert view.gateways.startswith("The newest route of flights is not published")
    assert [(arm.version, arm.share) for arm in endpoint.arms] == [(2, 1.0)]
    assert endpoint.undo is not None
    assert (endpoint.undo.effect, endpoint.undo.release) == ("100% to v1", "rel_2")


@pytest.mark.parametrize("run", ["queued", "running", "failed"])
def test_a_run_without_a_model_is_shown_with_its_state(world: World, run: str) -> None:
    def work(tx) -> None:
        row = tx.runs.get(f"{3:032x}")
        tx.runs.change(
            replace(row, state=run, model_version=None, error="disk full" if run == "failed" else None)
        )

    world.ws.store.write(work)

    view = now_view(world.ws, Traffic(world.ws.log, world.ws.clock))

    assert (view.runs[0].state, view.runs[0].result) == (run, "disk full" if run == "failed" else "")
