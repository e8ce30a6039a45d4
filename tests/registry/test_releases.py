"""No way leads to live but a passing verdict and the approvals asked for, and there is never more than one live release."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from andon.core.entities import Release
from andon.core.errors import AndonError, Conflict, Forbidden, Invalid, InvalidTransition
from andon.core.events import edges
from andon.core.ids import node
from andon.core.states import IN_PROGRESS
from andon.registry import (
    approve,
    authors,
    go_live,
    in_progress,
    judging,
    live_release,
    refuse,
    register_version,
    start_rolling,
    undo_release,
    withdraw,
)
from tests.registry.world import EVIDENCE, FAILED, PASSED, POLICY, RegistryWorld, other


def rolling(world: RegistryWorld, **changes: Any) -> Release:
    version = world.version()
    verdict = world.verdict(version)
    release = world.do(judging, world.request(version, **changes))
    return world.do(start_rolling, release, verdict)


def live(world: RegistryWorld) -> Release:
    return world.do(go_live, rolling(world))


def state(world: RegistryWorld, release: Release) -> str:
    return world.read(lambda reader: reader.releases.get(release.id)).state


@pytest.mark.capability("D14")
def test_a_release_goes_live_through_verdict_and_rollout_with_an_event_for_each_step(
    world: RegistryWorld,
) -> None:
    version = world.version()
    verdict = world.verdict(version)

    release = world.do(go_live, world.do(start_rolling, world.do(judging, world.request(version)), verdict))

    assert (release.state, release.verdict, release.previous) == ("live", verdict.id, None)
    assert world.read(lambda reader: live_release(reader, "churn")) == release
    events = world.events(node("release", release.id))
    assert [event.kind for event in events] == [
        "release.requested", "release.judging", "release.rolling", "release.live"
    ]  # fmt: skip
    assert events[0].inputs == (
        node("model_version", version.id),
        node("policy", POLICY),
        node("run", version.run),
    )
    assert events[2].inputs == (node("verdict", verdict.id),)


def test_the_next_release_supersedes_the_live_one_in_one_step(world: RegistryWorld) -> None:
    first, second = live(world), live(world)

    assert (state(world, first), state(world, second)) == ("superseded", "live")
    assert second.previous == first.id


def test_asking_again_gives_the_release_in_progress(world: RegistryWorld) -> None:
    version = world.version()
    release = world.request(version)

    assert world.request(version) == release
    assert world.kinds(node("release", release.id)) == ["release.requested"]


@pytest.mark.parametrize("step", [None, judging])
def test_a_second_version_has_to_wait_for_the_first(
    world: RegistryWorld, step: Callable[..., Any] | None
) -> None:
    release = world.request(world.version())
    if step:
        world.do(step, release)

    with pytest.raises(Conflict, match=f"release {release.id} of churn/1 is on its way to endpoint 'churn'"):
        world.request(world.version())

    world.request(world.version(), endpoint="elsewhere")


def test_the_version_that_is_live_is_not_released_again(world: RegistryWorld) -> None:
    release = live(world)
    version = world.read(lambda reader: reader.model_versions.get(release.model_version))

    with pytest.raises(Conflict, match="churn/1 is live on endpoint 'churn' already"):
        world.request(version)
    with pytest.raises(Invalid, match="retired"):
        world.request(replace(version, state="retired"))


@pytest.mark.parametrize(
    ("judgement", "changes"),
    [
        (FAILED, {}),
        (PASSED, {"endpoint": "elsewhere"}),
        (PASSED, {"policy": other("another")}),
    ],
)
def test_a_verdict_that_failed_or_is_for_something_else_lets_nothing_through(
    world: RegistryWorld, judgement: Any, changes: dict[str, Any]
) -> None:
    version = world.version()
    verdict = world.verdict(version, judgement, **changes)
    release = world.do(judging, world.request(version))

    with pytest.raises(Forbidden, match=r"did not pass|is not for the digest"):
        world.do(start_rolling, release, verdict)

    assert state(world, release) == "judging"


def test_a_verdict_of_another_version_lets_nothing_through(world: RegistryWorld) -> None:
    verdict = world.verdict(world.version())
    release = world.do(judging, world.request(world.version()))

    with pytest.raises(Forbidden, match="is not for the digest"):
        world.do(start_rolling, release, verdict)


def test_going_live_checks_the_verdict_again(world: RegistryWorld) -> None:
    release = rolling(world)
    rejected = world.verdict(
        world.read(lambda reader: reader.model_versions.get(release.model_version)), FAILED
    )

    with pytest.raises(Forbidden, match="did not pass"):
        world.do(go_live, replace(release, verdict=rejected.id))
    with pytest.raises(Forbidden, match="has no verdict"):
        world.do(go_live, replace(release, verdict=None))

    assert world.read(lambda reader: live_release(reader, "churn")) is None


STEPS: dict[str, Callable[[RegistryWorld, Release], Any]] = {
    "judging": lambda world, release: world.do(judging, release),
    "rolling": lambda world, release: world.do(
        start_rolling, release, world.read(lambda r: r.verdicts.select(limit=1)[0])
    ),
    "live": lambda world, release: world.do(go_live, release),
    "refused": lambda world, release: world.do(refuse, release, because="x"),
    "withdrawn": lambda world, release: world.do(withdraw, release, because="x"),
    "undone": lambda world, release: world.do(undo_release, release, because="x"),
}
ALLOWED = {
    "requested": {"judging", "withdrawn"},
    "judging": {"rolling", "refused", "withdrawn"},
    "rolling": {"live", "undone", "withdrawn"},
    "live": {"undone"},
    "refused": set(),
    "withdrawn": set(),
    "undone": set(),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("at", ALLOWED)
def test_each_state_allows_its_own_steps_only(world: RegistryWorld, at: str, step: str) -> None:
    version = world.version()
    world.verdict(version)
    release = world.request(version)
    path = {
        "live": ["judging", "rolling", "live"],
        "rolling": ["judging", "rolling"],
        "undone": ["judging", "rolling", "undone"],
    }
    for name in path.get(at, ["judging"] if at in ("judging", "refused") else []):
        release = STEPS[name](world, release)
    if at in ("refused", "withdrawn"):
        release = STEPS[at](world, release)
    events = len(world.events())

    if step in ALLOWED[at]:
        assert STEPS[step](world, release).state == step
        return
    with pytest.raises(InvalidTransition):
        STEPS[step](world, release)
    assert state(world, release) == at
    assert len(world.events()) == events


def test_undoing_the_live_release_brings_the_one_before_back(world: RegistryWorld) -> None:
    first, second = live(world), live(world)

    world.do(undo_release, second, because="too many errors", actor=world.ann)

    assert (state(world, first), state(world, second)) == ("live", "undone")
    assert world.kinds(node("release", first.id))[-2:] == ["release.superseded", "release.live"]
    assert world.events(node("release", second.id))[-1].actor == world.ann
    assert world.read(lambda reader: reader.releases.get(second.id)).because == "too many errors"


def test_undoing_the_first_release_leaves_the_endpoint_without_one(world: RegistryWorld) -> None:
    release = live(world)

    world.do(undo_release, release, because="it was wrong")

    assert world.read(lambda reader: live_release(reader, "churn")) is None


def test_undo_goes_back_as_often_as_there_is_a_way(world: RegistryWorld) -> None:
    first, second, third = live(world), live(world), live(world)

    for release, answers in ((third, second), (second, first)):
        world.do(undo_release, world.read(lambda reader: live_release(reader, "churn")), because="no")
        assert state(world, release) == "undone"
        assert state(world, answers) == "live"

    fourth = live(world)
    assert fourth.previous == first.id
    world.do(undo_release, fourth, because="no")
    assert state(world, first) == "live"


def test_undoing_a_rolling_release_leaves_the_live_one_alone(world: RegistryWorld) -> None:
    first, second = live(world), rolling(world)

    world.do(undo_release, second, because="guard")

    assert (state(world, first), state(world, second)) == ("live", "undone")


def test_a_release_waits_for_the_approvals_its_policy_asks_for(world: RegistryWorld) -> None:
    release = rolling(world, approvals_needed=2)
    verdict = world.read(lambda reader: reader.verdicts.get(release.verdict))
    assert release.state == "waiting"

    one = world.do(approve, release, actor=world.bob)
    assert world.do(approve, release, actor=world.bob) == one
    assert world.do(start_rolling, release, verdict) == release
    two = world.do(approve, release, actor=world.cat)
    moved = world.do(start_rolling, release, verdict)

    assert moved.state == "rolling"
    event = world.events(node("release", release.id))[-1]
    assert event.inputs == (node("verdict", verdict.id), node("approval", one.id), node("approval", two.id))
    assert world.read(lambda reader: reader.model_versions.get(release.model_version)).state == "approved"
    assert world.do(go_live, moved).state == "live"


@pytest.mark.parametrize("who", ["run", "request", "code", "service", "line"])
def test_an_authors_own_word_never_counts(world: RegistryWorld, who: str) -> None:
    if who == "code":
        world.change_line(world.ann)
    version = world.version(actor=world.ann if who == "run" else None)
    world.verdict(version)
    release = world.do(
        judging, world.request(version, approvals_needed=1, actor=world.ann if who == "request" else None)
    )
    speaker = {"service": world.robot, "line": world.line_actor}.get(who, world.ann)

    with pytest.raises(Forbidden, match=r"an author|a service|a line"):
        world.do(approve, release, actor=speaker)

    assert world.read(lambda reader: reader.approvals.count()) == 0


def test_the_authors_of_a_line_are_all_who_changed_it_since_the_live_version(world: RegistryWorld) -> None:
    world.change_line(world.ann)
    first = live(world)
    assert world.read(lambda reader: authors(reader, first)) == {world.line_actor, world.ann}

    world.change_line(world.bob)
    world.change_line(world.cat)
    second = rolling(world)
    world.change_line(world.robot)

    assert world.read(lambda reader: authors(reader, second)) == {world.line_actor, world.bob, world.cat}


@pytest.mark.parametrize("who", ["registered it", "asked for it", "began the run", "changed the policy"])
def test_of_a_version_that_no_line_made_the_authors_are_all_who_had_a_part(
    world: RegistryWorld, who: str
) -> None:
    run = world.tracked_run(actor=world.ann if who == "began the run" else world.cat)
    if who == "changed the policy":
        world.change_line(world.ann)
    version = world.do(
        register_version, model="churn", digest=other("package"), run=run,
        actor=world.ann if who == "registered it" else world.cat,
    )  # fmt: skip
    world.verdict(version)
    release = world.do(
        judging,
        world.request(version, approvals_needed=1, actor=world.ann if who == "asked for it" else world.cat),
    )

    with pytest.raises(Forbidden, match="an author"):
        world.do(approve, release, actor=world.ann)

    assert world.do(approve, release, actor=world.bob).actor == world.bob


def test_a_version_without_any_run_is_released_like_others(world: RegistryWorld) -> None:
    version = world.do(register_version, model="churn", digest=other("package"), actor=world.ann)
    verdict = world.verdict(version)
    release = world.do(judging, world.request(version, approvals_needed=1))

    world.do(approve, release, actor=world.bob)
    world.do(go_live, world.do(start_rolling, release, verdict))
    following = rolling(world)

    assert release.run is None
    assert state(world, release) == "live"
    assert world.read(lambda reader: authors(reader, following)) == {world.line_actor}


def test_the_run_of_the_live_version_may_be_gone(world: RegistryWorld) -> None:
    first = live(world)
    world.write(lambda tx: tx.runs.remove(first.run))

    second = rolling(world)

    assert world.read(lambda reader: authors(reader, second)) == {world.line_actor}


def test_a_deleted_version_is_not_released(world: RegistryWorld) -> None:
    version = world.version()
    gone = world.write(lambda tx: tx.model_versions.change(replace(version, deleted_at=world.now())))

    with pytest.raises(Invalid, match="churn/1 was deleted"):
        world.request(gone)


def test_an_approval_of_another_digest_or_policy_does_not_count(world: RegistryWorld) -> None:
    release = rolling(world, approvals_needed=1)
    verdict = world.read(lambda reader: reader.verdicts.get(release.verdict))
    given = world.do(approve, release, actor=world.bob)
    for changed in ({"version_digest": other("x")}, {"policy": other("x")}):
        world.write(
            lambda tx, changed=changed: tx.approvals.change(replace(tx.approvals.get(given.id), **changed))
        )

        assert world.do(start_rolling, release, verdict).state == "waiting"


@pytest.mark.parametrize("step", ["rolling", "live", "undone"])
def test_a_release_on_its_way_takes_no_approval(world: RegistryWorld, step: str) -> None:
    release = rolling(world)
    if step != "rolling":
        release = STEPS[step](world, release)

    with pytest.raises(InvalidTransition, match="takes no approval"):
        world.do(approve, release, actor=world.bob)


def test_a_stale_release_is_not_moved_twice(world: RegistryWorld) -> None:
    release = world.request(world.version())
    world.do(judging, release)

    with pytest.raises(Conflict):
        world.do(judging, release)

    assert world.kinds(node("release", release.id)) == ["release.requested", "release.judging"]


def test_lineage_of_many_releases_has_no_circle(world: RegistryWorld) -> None:
    live(world)
    approved = rolling(world, approvals_needed=1)
    world.do(approve, approved, actor=world.bob)
    verdict = world.read(lambda reader: reader.verdicts.get(approved.verdict))
    second = world.do(go_live, world.do(start_rolling, approved, verdict))
    live(world)
    world.do(undo_release, world.read(lambda reader: live_release(reader, "churn")), because="no")

    after: dict[str, set[str]] = {}
    for event in world.events():
        for edge in edges(event):
            after.setdefault(edge.src, set()).add(edge.dst)
    for start, following in after.items():
        reached, waiting = set(), list(following)
        while waiting:
            found = waiting.pop()
            if found not in reached:
                reached.add(found)
                waiting += after.get(found, ())
        assert start not in reached
    assert state(world, second) == "live"


class Releases(RuleBasedStateMachine):
    """Any sequence of verbs, by anybody, with right and wrong verdicts, over two endpoints of a real store."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.world = RegistryWorld(Path(self.folder.name) / ".andon")
        self.versions = [self.world.version() for _ in range(3)]
        self.people = (
            self.world.ann,
            self.world.bob,
            self.world.cat,
            self.world.robot,
            self.world.line_actor,
        )

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()
            self.folder.cleanup()

    def release(self, pick: int) -> Release | None:
        rows = self.world.read(lambda reader: reader.releases.select())
        return rows[pick % len(rows)] if rows else None

    def attempt(self, verb: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        try:
            self.world.do(verb, *arguments, **named)
        except AndonError:
            return

    picks = st.integers(0, 50)
    actors = st.integers(0, 4)
    endpoints = st.sampled_from(["churn", "other"])

    @rule(pick=picks, endpoint=endpoints, passed=st.booleans(), policy=st.sampled_from([POLICY, other("2")]))
    def judge(self, pick: int, endpoint: str, passed: bool, policy: Any) -> None:
        version = self.versions[pick % 3]
        self.world.verdict(
            version, PASSED if passed else FAILED, endpoint=endpoint, policy=policy, evidence=EVIDENCE
        )

    @rule(
        pick=picks,
        endpoint=endpoints,
        needed=st.integers(0, 2),
        who=actors,
        policy=st.sampled_from([POLICY, other("2")]),
    )
    def request(self, pick: int, endpoint: str, needed: int, who: int, policy: Any) -> None:
        version = self.versions[pick % 3]
        try:
            self.world.request(
                version, endpoint=endpoint, approvals_needed=needed, actor=self.people[who], policy=policy
            )
        except AndonError:
            return

    @rule(pick=picks, who=actors, step=st.sampled_from([judging, go_live, approve]))
    def step(self, pick: int, who: int, step: Callable[..., Any]) -> None:
        if release := self.release(pick):
            self.attempt(step, release, actor=self.people[who])

    @rule(pick=picks, which=picks)
    def roll(self, pick: int, which: int) -> None:
        verdicts = self.world.read(lambda reader: reader.verdicts.select())
        if verdicts and (release := self.release(pick)):
            self.attempt(start_rolling, release, verdicts[which % len(verdicts)])

    @rule(pick=picks, step=st.sampled_from([refuse, withdraw, undo_release, undo_release]))
    def stop(self, pick: int, step: Callable[..., Any]) -> None:
        if release := self.release(pick):
            self.attempt(step, release, because="no")

    @rule(
        pick=picks, endpoint=endpoints, needed=st.integers(0, 1), passed=st.booleans(), word=st.booleans(), end=st.booleans()
    )  # fmt: skip
    def whole_way(self, pick: int, endpoint: str, needed: int, passed: bool, word: bool, end: bool) -> None:
        """Ask, judge rightly or wrongly, maybe approve, roll and maybe go live: deep states are reached often."""
        self.request(pick, endpoint, needed, pick % 5, POLICY)
        release = self.world.read(lambda reader: in_progress(reader, endpoint))
        if release is None:
            return
        version = self.world.read(lambda reader: reader.model_versions.get(release.model_version))
        judgement = PASSED if passed else FAILED
        verdict = self.world.verdict(version, judgement, endpoint=endpoint, policy=release.policy)
        steps: list[Callable[..., Any]] = [judging, *([approve] if word else [])]
        steps += [
            lambda tx, row, **named: start_rolling(tx, row, verdict, **named),
            *([go_live] if end else []),
        ]
        for step in steps:
            row = self.world.read(lambda reader: reader.releases.get(release.id))
            self.attempt(step, row, actor=self.people[(pick // 5) % 5])

    @invariant()
    def one_live_release_with_verdict_and_approvals(self) -> None:
        if not hasattr(self, "world"):
            return
        rows = self.world.read(lambda reader: reader.releases.select())
        for endpoint in ("churn", "other"):
            mine = [row for row in rows if row.endpoint == endpoint]
            assert sum(row.state == "live" for row in mine) <= 1
            assert sum(row.state in IN_PROGRESS for row in mine) <= 1
        for row in rows:
            if row.state in ("rolling", "live", "superseded"):
                self.check_right_to_answer(row)

    def check_right_to_answer(self, row: Release) -> None:
        verdict = self.world.read(lambda reader: reader.verdicts.get(row.verdict))
        assert verdict.passed
        assert (verdict.version_digest, verdict.endpoint, verdict.policy) == (
            row.version_digest,
            row.endpoint,
            row.policy,
        )
        given = self.world.read(lambda reader: reader.approvals.select({"release": row.id}))
        people = {approval.actor for approval in given} & {self.world.ann, self.world.bob, self.world.cat}
        assert len(people - {row.actor}) >= row.approvals_needed

    @invariant()
    def every_change_has_its_event(self) -> None:
        if not hasattr(self, "world"):
            return
        last = {event.subject: event.kind for event in self.world.events()}  # verifies the chain too
        for row in self.world.read(lambda reader: reader.releases.select()):
            assert last[node("release", row.id)] == f"release.{row.state}"


TestReleases = Releases.TestCase
TestReleases.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
