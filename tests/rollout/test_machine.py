"""Any sequence of starts, steps, undos, adoptions and restores over a real database keeps what an endpoint lives by."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from andon.core.entities import Release, RouteRow
from andon.core.errors import Conflict, NotFound
from andon.core.ids import OverrideId, ReleaseId, node
from andon.core.policy import ReleasePolicy
from andon.core.routes import GENERATION_STEP, Override, effective
from andon.rollout import adopt, pause, proceed, publish, resume, unadopted
from tests.rollout.world import POLICY, RolloutWorld

Role = Literal["stable", "candidate", "previous", "gone"]
DIRECT = ReleasePolicy(endpoint="churn", strategy="direct")


class Endpoint(RuleBasedStateMachine):
    """Every verb may be tried at any time; one that does not fit is refused and changes nothing."""

    @initialize(live=st.integers(0, 3), rolling=st.booleans())
    def open(self, live: int, rolling: bool) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.world = RolloutWorld(Path(self.folder.name) / ".andon")
        self.overrides: list[Override] = []
        self.epoch = 1
        self.released = 0
        self.before: RouteRow | None = None
        for _ in range(live):
            self.all_the_way()
        if rolling:
            self.release(direct=False)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()
            self.folder.cleanup()

    def route(self) -> RouteRow | None:
        return self.world.read(lambda reader: reader.routes.find("churn"))

    def tried(self, verb: Any, *arguments: Any, **named: Any) -> bool:
        """Whether it went; a refusal left no trace."""
        before = (self.route(), len(self.world.events()))
        try:
            verb(*arguments, **named)
        except (Conflict, NotFound):
            assert (self.route(), len(self.world.events())) == before
            return False
        return True

    def moving(self) -> Release | None:
        found = self.world.read(lambda reader: reader.releases.select({"state": "rolling"}))
        assert len(found) <= 1
        return found[0] if found else None

    # --- forward ---

    @precondition(lambda self: self.moving() is None)
    @rule(direct=st.booleans())
    def release(self, direct: bool) -> None:
        release = self.world.rolling(f"model {self.released}")
        self.released += 1
        held = self.held()

        went = self.tried(self.world.start, release, DIRECT if direct else POLICY)

        assert went is not held

    @precondition(lambda self: self.moving() is None and not self.held())
    @rule()
    def all_the_way(self) -> None:
        self.released += 1
        self.world.live(f"model {self.released}")

    @precondition(lambda self: self.moving() is not None)
    @rule()
    def start_again(self) -> None:
        moving = self.moving()
        assert moving is not None
        self.tried(self.world.start, moving)

    @precondition(lambda self: self.moving() is not None and self.route() is not None)
    @rule(verb=st.sampled_from(["advance", "switch", "finish", "pause", "proceed"]))
    def step(self, verb: str) -> None:
        moving, route = self.moving(), self.route()
        assert moving is not None
        assert route is not None
        if route.candidate != moving.id:
            return
        rollout = self.world.rollout(moving)
        verbs: dict[str, Any] = {
            "advance": self.world.advance, "switch": self.world.switch, "finish": self.world.finish,
            "pause": lambda row: self.world.do(pause, row, because="lunch"), "proceed": lambda row: self.world.do(proceed, row),
        }  # fmt: skip

        went = self.tried(verbs[verb], rollout)

        if route.held and verb != "pause":
            assert not went
        if went and verb == "finish":
            after = self.world.route()
            assert (after.stable, after.previous, after.candidate) == (moving.id, route.stable, None)

    # --- back ---

    @precondition(lambda self: self.route() is not None)
    @rule(role=st.sampled_from([None, "stable", "candidate", "previous", "gone"]), hold=st.booleans())
    def undo(self, role: Role | None, hold: bool) -> None:
        route = self.route()
        assert route is not None
        target = self.named(route, role) if role else route.candidate or route.stable

        went = self.tried(self.world.undo, release=target if role else None, hold=hold)

        self.check_undone(route, target, went=went, held=route.held or hold)

    @precondition(lambda self: self.route() is not None)
    @rule(role=st.sampled_from(["stable", "candidate", "previous", "gone"]), age=st.integers(0, 1))
    def undo_at_a_gateway(self, role: Role, age: int) -> None:
        route = self.route()
        assert route is not None
        target = self.named(route, role)
        override = self.world.override(
            target, id=OverrideId(f"ov_{len(self.overrides)}"), epoch=self.epoch - age
        )
        self.overrides.append(override)
        self.world.journal(override)
        seen = effective(self.world.published(), self.overrides)

        went = self.world.do(adopt, override)

        assert went is (age == 0)
        if went:
            answering = {arm.role: arm.release for arm in self.world.published().arms}
            kept = {arm.role: arm.release for arm in seen.arms}
            # Gateways go on with what they answered since the undo; where that was nothing, the endpoint does not stay dark.
            assert answering.get("stable") == (kept.get("stable") or route.stable)
            assert answering.get("candidate") in (
                kept.get("candidate"),
                None if "stable" in kept else route.candidate,
            )
            assert self.world.route().held
            assert self.world.route().previous != target

    @precondition(lambda self: self.overrides)
    @rule(data=st.data())
    def adopt_again(self, data: st.DataObject) -> None:
        override = data.draw(st.sampled_from(self.overrides))
        before = self.route()

        assert not self.world.do(adopt, override)
        assert self.route() == before

    @precondition(lambda self: self.route() is not None)
    @rule()
    def resume(self) -> None:
        self.world.do(resume, "churn")

        assert not self.world.route().held

    @rule()
    def restore(self) -> None:
        self.epoch = self.world.new_epoch()

    @rule()
    def publish(self) -> None:
        publish(self.world.layout, self.world.store)

        assert not publish(self.world.layout, self.world.store)

    # --- what always holds ---

    @invariant()
    def one_release_is_live_and_it_is_the_stable_one(self) -> None:
        live = self.world.read(lambda reader: reader.releases.select({"endpoint": "churn", "state": "live"}))
        route = self.route()
        assert [release.id for release in live] == ([route.stable] if route and route.stable else [])
        if route and route.previous:
            assert self.world.release(route.previous).state == "superseded"

    @invariant()
    def there_is_a_candidate_only_while_it_rolls(self) -> None:
        route = self.route()
        if route is None or route.candidate is None:
            assert route is None or route.weight_percent == 0
            active = self.world.read(
                lambda reader: reader.rollouts.count({"state": ["planned", "canary", "switching", "paused"]})
            )
            assert active == 0
            return
        rollout = self.world.rollout(self.world.release(route.candidate))
        assert self.world.release(route.candidate).state == "rolling"
        assert rollout.state in ("canary", "switching", "paused")
        assert route.weight_percent == rollout.steps[rollout.step]

    @invariant()
    def generations_only_grow_and_each_change_has_its_own(self) -> None:
        route = self.route()
        if self.before is not None and route is not None and route != self.before:
            steps = (route.generation - self.before.generation) / GENERATION_STEP
            assert steps >= 1
            assert steps == int(steps)
        self.before = route
        # `events` verifies the chain.
        events = self.world.events(node("endpoint", "churn"))
        said = [event.facts["generation"] for event in events if event.kind.startswith("route.")]
        assert said == [GENERATION_STEP * (number + 1) for number in range(len(said))]

    @invariant()
    def what_was_adopted_changes_the_published_route_no_more(self) -> None:
        assert self.world.read(lambda reader: unadopted(reader, self.overrides)) == []
        if self.route() is not None:
            published = self.world.published()
            assert published.epoch == self.epoch
            assert effective(published, self.overrides) == published

    # --- words ---

    def held(self) -> bool:
        route = self.route()
        return route is not None and route.held

    def named(self, route: RouteRow, role: Role) -> ReleaseId:
        arm: ReleaseId | None = None if role == "gone" else getattr(route, role)
        return arm or ReleaseId("rel_gone")

    def check_undone(self, before: RouteRow, target: ReleaseId | None, *, went: bool, held: bool) -> None:
        after = self.world.route()
        back = before.stable if target == before.candidate else before.previous
        assert went is (
            target in (before.candidate, before.stable) and target is not None and back is not None
        )
        if went:
            assert (after.stable, after.candidate, after.weight_percent, after.held) == (back, None, 0, held)
            assert after.previous == (before.previous if target == before.candidate else None)
            assert self.world.release(target or ReleaseId("")).state == "undone"


Endpoint.TestCase.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)


@pytest.mark.capability("E5", "I7")
class TestAnyHistory(Endpoint.TestCase):  # type: ignore[name-defined,misc]
    """An endpoint with any history."""
