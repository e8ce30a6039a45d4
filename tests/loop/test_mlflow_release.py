"""An MLflow client moves the alias or stage that a policy names: that is a request to release, and nothing gets around it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

import pytest

from andon.core.entities import Actor, ModelVersion, Release, Verdict
from andon.core.errors import Forbidden
from andon.governance.access import Principal, ensure_actor
from andon.governance.audit import verify
from andon.pipelines.registration import register_line
from andon.web.mlflow import models
from tests.loop.conftest import Project
from tests.web.client import Client
from tests.web.conftest import Control, serving
from tests.web.world import World

API = "/api/2.0/mlflow/"


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        said: str = self.body["message"]
        return said


class Wire:
    """An MLflow client of a project's workspace."""

    def __init__(self, project: Project, control: Control) -> None:
        self.project, self.control = project, control

    def ask(self, method: str, path: str, **form: Any) -> Answer:
        client: Client = self.control.client
        reply = client.ask(
            method, f"{API}{path}?{urlencode(form)}" if method == "GET" else API + path,
            None if method == "GET" else json.dumps(form).encode(), Content_Type="application/json",
        )  # fmt: skip
        return Answer(reply.status, reply.json)

    def alias(self, number: int, alias: str = "production") -> Answer:
        return self.ask("POST", "registered-models/alias", name="churn", alias=alias, version=str(number))

    def stage(self, number: int, stage: str = "Production", **more: bool) -> Answer:
        asked = {"name": "churn", "version": str(number), "stage": stage, **more}
        return self.ask("POST", "model-versions/transition-stage", **asked)

    def pointed(self) -> tuple[str | None, str | None]:
        """The versions that clients find at the alias and in the stage."""
        alias = self.ask("GET", "registered-models/alias", name="churn", alias="production")
        newest = self.ask(
            "POST", "registered-models/get-latest-versions", name="churn", stages=["Production"]
        )
        found = newest.body.get("model_versions", [])
        return alias.body.get("model_version", {}).get("version"), found[0]["version"] if found else None

    def role(self, name: str) -> None:
        """Let who asks have another role."""
        self.control.state.owner = Principal(self.control.state.owner.actor, name)


@contextmanager
def wired(project: Project) -> Iterator[Wire]:
    with serving(cast(World, project)) as control:
        yield Wire(project, control)


@contextmanager
def working(project: Project) -> Iterator[None]:
    """A worker beside the test."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            if not project.reconciler.step():
                stop.wait(0.01)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()


@pytest.fixture
def direct(project: Project) -> Project:
    """A line whose releases take all requests at once."""
    project.edit("andon.toml", 'strategy = "canary"', 'strategy = "direct"')
    return project


def person(project: Project, name: str) -> Actor:
    now = project.ws.clock.now()
    return project.ws.store.write(lambda tx: ensure_actor(tx, f"os:{name}", "person", name, now))


def releases(project: Project) -> list[Release]:
    return project.ws.store.read(lambda reader: reader.releases.select(order=("created_at",)))


def verdicts(project: Project, number: int) -> list[Verdict]:
    def work(reader: Any) -> list[Verdict]:
        version: ModelVersion = reader.model_versions.select({"model": "churn", "number": number})[0]
        found: list[Verdict] = reader.verdicts.select({"model_version": version.id}, order=("created_at",))
        return found

    return project.ws.store.read(work)


@pytest.mark.capability("E2", "E5", "E6")
def test_the_alias_asks_for_a_release_that_is_judged_rolled_out_and_undone(direct: Project) -> None:
    direct.run()
    direct.run()

    with wired(direct) as wire:
        assert wire.pointed() == ("2", "2")

        first, again, by_stage = wire.alias(1), wire.alias(1), wire.stage(1)
        assert [each.status for each in (first, again, by_stage)] == [400, 400, 400]
        asked = releases(direct)[-1]
        assert all(asked.id in each.message for each in (first, again, by_stage))
        assert wire.pointed() == ("2", "2")

        direct.drive(lambda: (live := direct.live()) and live.id == asked.id)
        assert (wire.pointed(), wire.alias(1).status) == (("1", "1"), 200)
        old, new = verdicts(direct, 1)
        assert (old.against, new.passed) == (None, True)
        assert new.against == releases(direct)[1].model_version

        direct.ws.undo("churn", direct.ws.actor().id)
        assert wire.pointed() == ("2", "2")
        assert len(releases(direct)) == 3
    assert verify(direct.ws.store).ok


@pytest.mark.capability("E3", "E4")
def test_nothing_that_no_other_person_approved_goes_live_by_any_path(direct: Project) -> None:
    bob = person(direct, "bob")
    direct.edit("andon.toml", "approvals = 0", "approvals = 1")
    direct.run()
    trainer = direct.ws.actor()

    with wired(direct) as wire:
        (release,) = releases(direct)
        said = [
            wire.alias(1),
            wire.stage(1),
            wire.stage(1, archive_existing_versions=True),
            wire.stage(1, "PRODUCTION"),
        ]
        assert {each.status for each in said} == {400}
        assert all(release.id in each.message and "approval of one person" in each.message for each in said)
        assert wire.control.client.post(f"/api/releases/{release.id}/approve").status == 403
        with pytest.raises(Forbidden, match="author"):
            direct.ws.approve(release.id, trainer.id)
        copied = wire.ask("POST", "model-versions/create", name="churn", source="models:/churn/1")
        wire.ask("POST", "registered-models/create", name="mine")
        wire.ask("POST", "model-versions/create", name="mine", source="models:/churn/1")
        plain = wire.ask("POST", "registered-models/alias", name="mine", alias="production", version="1")
        other = wire.alias(2)
        assert (copied.status, plain.status, other.status) == (200, 200, 400)
        assert release.id in other.message
        direct.settle()
        assert (direct.live(), wire.pointed(), len(releases(direct))) == (None, (None, None), 1)

        direct.ws.approve(release.id, bob.id)
        direct.settle()
        assert (wire.alias(1).status, wire.pointed()) == (200, ("1", "1"))
        assert wire.alias(2).status == 400
        direct.settle()
        assert wire.pointed() == ("1", "1")


def test_as_many_approvals_as_there_are_people_are_refused_with_the_policy(direct: Project) -> None:
    direct.edit("andon.toml", "approvals = 0", "approvals = 2")
    person(direct, "bob")

    with pytest.raises(Exception, match="a workspace of 2 people cannot satisfy"):
        register_line(direct.ws, direct.folder, direct.ws.actor().id)

    person(direct, "cat")
    assert register_line(direct.ws, direct.folder, direct.ws.actor().id).id == "churn"


@pytest.mark.capability("E3")
def test_what_gates_cannot_load_is_refused_with_the_reason_each_time(direct: Project) -> None:
    direct.run()

    with wired(direct) as wire:
        wire.ask("POST", "model-versions/create", name="churn", source="s3://bucket/churn")
        wire.alias(2)
        direct.drive(lambda: releases(direct)[-1].state == "refused")
        refused = releases(direct)[-1]
        first, second = wire.alias(2), wire.stage(2)

        assert (first.status, first.message) == (second.status, second.message)
        assert refused.id in first.message
        assert "s3://bucket/churn" in first.message
        assert (wire.pointed(), len(releases(direct))) == (("1", "1"), 2)
        (verdict,) = verdicts(direct, 2)
        assert not verdict.passed
        evidence = json.loads(direct.ws.blobs.get(verdict.evidence))
        assert evidence["checks"][0]["name"] == "sanity: loads"


def test_a_changed_policy_judges_a_version_again(direct: Project) -> None:
    direct.run()
    direct.run()
    direct.edit("andon.toml", 'auc = ">= 0.70"', 'auc = ">= 0.999"')
    register_line(direct.ws, direct.folder, direct.ws.actor().id)

    with wired(direct) as wire:
        wire.alias(1)
        direct.drive(lambda: releases(direct)[-1].state == "refused")

        assert "auc" in wire.alias(1).message
        assert wire.pointed() == ("2", "2")
        assert [verdict.passed for verdict in verdicts(direct, 1)] == [True, False]


@pytest.mark.capability("E8")
def test_who_may_not_release_may_not_move_what_the_policy_names(direct: Project) -> None:
    direct.run()
    direct.run()

    with wired(direct) as wire:
        wire.role("operator")

        said = [
            wire.alias(1),
            wire.stage(1),
            wire.ask("DELETE", "model-versions/delete", name="churn", version="1"),
        ]
        assert [(each.status, each.body["error_code"]) for each in said] == [(403, "PERMISSION_DENIED")] * 3
        assert (wire.alias(1, "challenger").status, wire.stage(1, "Archived").status) == (200, 200)
        assert (wire.pointed(), len(releases(direct))) == (("2", "2"), 2)
        denied = direct.ws.store.read(lambda reader: reader.ledger.after(0, kinds=["access.denied"]))
        assert [event.facts["permission"] for event in denied] == ["release"] * 3


def test_what_is_live_or_kept_for_an_undo_stays_whatever_the_client_asks(direct: Project) -> None:
    direct.run()
    direct.run()

    with wired(direct) as wire:
        said = {
            "live": wire.ask("DELETE", "model-versions/delete", name="churn", version="2"),
            "brings it back": wire.ask("DELETE", "model-versions/delete", name="churn", version="1"),
            "says that version 2 is live": wire.ask(
                "DELETE", "registered-models/alias", name="churn", alias="production"
            ),
            "cannot be deleted": wire.ask("DELETE", "registered-models/delete", name="churn"),
            "cannot be renamed": wire.ask(
                "POST", "registered-models/rename", name="churn", new_name="leavers"
            ),
            "stays in Production": wire.stage(2, "Archived"),
        }
        assert {each.status for each in said.values()} == {400}
        assert [words for words, each in said.items() if words not in each.message] == []
        assert wire.stage(1, "Staging", archive_existing_versions=True).status == 200
        assert (wire.pointed(), len(releases(direct))) == (("2", "2"), 2)

        wire.stage(1, archive_existing_versions=True)
        assert wire.pointed() == ("2", "2")
        direct.drive(lambda: (live := direct.live()) and live.number == 1)
        two = wire.ask("GET", "model-versions/get", name="churn", version="2").body["model_version"]
        assert (wire.pointed(), two["current_stage"]) == (("1", "1"), "Archived")


def test_a_policy_may_let_the_client_go_on_while_its_release_waits(direct: Project) -> None:
    person(direct, "bob")
    direct.edit(
        "andon.toml", "approvals = 0", 'approvals = 1\nwaiting = "accept"\nalias = "live"\nstage = "Staging"'
    )
    direct.run()

    with wired(direct) as wire:
        plain, aliased, staged = wire.alias(1), wire.alias(1, "live"), wire.stage(1, "Staging")

        assert (plain, aliased, staged.status) == ((200, {}), (200, {}), 200)
        version = staged.body["model_version"]
        assert (version["current_stage"], version["aliases"]) == ("None", ["production"])
        assert wire.ask("GET", "registered-models/alias", name="churn", alias="live").status == 400
        (release,) = releases(direct)
        assert (release.state, version.get("tags")) == (
            "waiting",
            [{"key": "andon.release", "value": release.id}],
        )


def test_a_release_that_needs_nobody_is_live_when_the_client_is_answered(
    direct: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "MOMENT_S", 60.0)
    direct.run()
    direct.run()
    direct.ws.undo("churn", direct.ws.actor().id)
    direct.ws.resume("churn", direct.ws.actor().id)

    with wired(direct) as wire, working(direct):
        before = wire.pointed()
        asked = wire.alias(2)

        assert (before, asked, wire.pointed()) == (("1", "1"), (200, {}), ("2", "2"))
        assert [verdict.against is not None for verdict in verdicts(direct, 2)] == [True]
