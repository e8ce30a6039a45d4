"""kill -9 of any process, again and again, under load: what was acknowledged is there afterwards, once, and nothing is torn.

`ANDON_CHAOS_CYCLES` is how often (50 on SQLite by default, two fifths of it on Postgres); `ANDON_CHAOS_SEED` plays the
same hand again. The checks themselves are tested below: each planted fault in the evidence of a real battery is found.
"""

from __future__ import annotations

import copy
import os
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from andon.core.errors import LedgerBroken
from andon.core.events import Event
from andon.core.ids import ModelVersionId, ReleaseId, RunId
from andon.core.workspace import FOLDER, Layout, settings_from
from andon.governance.audit import verify
from andon.pipelines.workspace import OpenWorkspace
from andon.store.backup import restore
from tests.chaos import checks
from tests.chaos.battery import Battery, Outcome, quantile
from tests.chaos.client import Caller, History, Label, Lost, Undo
from tests.chaos.conftest import SAID
from tests.chaos.evidence import Evidence, everything
from tests.chaos.house import House, until
from tests.chaos.line import NAME, draw

pytestmark = pytest.mark.chaos

CYCLES = int(os.environ.get("ANDON_CHAOS_CYCLES", "50"))
CONVERGES_S = 2.0


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get("ANDON_CHAOS_SEED") or secrets.randbelow(10**9))


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, seed: int) -> Outcome:
    """A battery that has ended."""
    environ, cycles = dict(os.environ), CYCLES
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        environ["ANDON_DATABASE_URL"] = _database(server, next(request.getfixturevalue("postgres_names")))
        cycles = CYCLES * 2 // 5
    folder = tmp_path_factory.mktemp(f"chaos-{request.param}")
    try:
        ended = Battery(folder, environ, seed=seed, cycles=cycles).run()
    except BaseException as error:
        error.add_note(f"play it again with ANDON_CHAOS_SEED={seed} (the logs are in {folder})")
        raise
    request.config.stash[SAID].append(f"chaos on {request.param}: {_told(ended, cycles)}")
    return ended


def _database(server: str, name: str) -> str:
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


def _told(outcome: Outcome, cycles: int) -> str:
    figures, evidence = outcome.figures, outcome.evidence
    lost = sum(evidence.history.counts.values())
    return (
        f"{cycles} kills (seed {outcome.seed}), {len(evidence.history.answers)} predictions and "
        f"{len(evidence.history.labels)} labels acknowledged, {lost} requests without an answer, "
        f"{len(evidence.releases)} releases, {len(evidence.history.undos)} undos; everything works again after a kill in "
        f"{quantile(figures.all_recoveries(), 0.5):.1f} s (p95 {quantile(figures.all_recoveries(), 0.95):.1f} s), "
        f"gateways follow a route in {quantile(figures.lag_s, 0.95):.2f} s (p95)"
    )


@pytest.mark.capability("E4", "E5", "H11", "J2", "L7")
def test_what_was_acknowledged_is_there_once_and_nothing_is_torn(outcome: Outcome) -> None:
    found = checks.wrong(outcome.evidence)

    by_check = {said.split(":")[0]: said for said in reversed(found)}
    assert not found, "\n".join(
        [
            f"{len(found)} faults with ANDON_CHAOS_SEED={outcome.seed}; the first of each check:",
            *by_check.values(),
        ]
    )


def test_the_battery_was_one(outcome: Outcome) -> None:
    """Every kind of process was killed, and there was something to lose."""
    evidence = outcome.evidence

    assert len(outcome.figures.kills) >= 5
    assert len(evidence.history.answers) > 500
    assert len(evidence.history.labels) > 200
    assert evidence.history.triggers
    assert evidence.segments
    assert len(evidence.releases) > 1


def test_gateways_follow_a_new_route_within_two_seconds(outcome: Outcome) -> None:
    assert outcome.figures.lag_s
    assert quantile(outcome.figures.lag_s, 0.95) <= CONVERGES_S, f"ANDON_CHAOS_SEED={outcome.seed}"


def test_the_end_is_in_order(outcome: Outcome) -> None:
    assert outcome.exit_code == 0
    assert outcome.end_s < 10.0


def test_a_backup_made_meanwhile_is_whole_and_begins_an_epoch_in_which_old_routes_lose(
    outcome: Outcome, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    saved, environ = outcome.saved, dict(outcome.environ)
    if "ANDON_DATABASE_URL" in environ:
        server, names = request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_names")
        environ["ANDON_DATABASE_URL"] = _database(server, next(names))
    layout = Layout(tmp_path / "restored" / FOLDER)

    report = restore(saved.folder, layout, settings_from(environ))

    assert report.epoch == saved.epoch + 1
    assert not report.damaged
    with OpenWorkspace(layout, settings_from(environ)) as ws:
        assert verify(ws.store).ok
        labelled = {row.prediction for row in everything(ws, lambda reader: reader.feedback)}
        triggers = {row.id for row in everything(ws, lambda reader: reader.triggers)}
        assert [ident for ident in saved.answers if not ws.log.has(ident)] == []  # type: ignore[arg-type]
        assert set(saved.labels) <= labelled
        assert set(saved.triggers) <= triggers
        house = House(layout, environ)
        try:
            _serves_the_new_epoch(house, ws, outcome)
        finally:
            house.destroy()


def _serves_the_new_epoch(house: House, ws: OpenWorkspace, outcome: Outcome) -> None:
    old = outcome.layout.routes.read_bytes()
    house.layout.routes.write_bytes(old)
    house.start()
    history = History()

    def asked() -> int | None:
        try:
            said = caller.post(f"/predict/{NAME}", draw(Random(1))[0], fine=(200, 404))
        except Lost:
            return None
        return said.get("epoch")

    caller = Caller(house.gateway_port, history)
    epoch = ws.status().epoch
    until("a gateway answers in the new epoch", lambda: asked() == epoch)

    house.layout.routes.write_bytes(old)

    until("the reconciler puts its own routes back", lambda: house.layout.routes.read_bytes() != old)
    assert {asked() for _ in range(20)} == {epoch}
    caller.close()
    assert house.end() == 0


# --- the checks, checked ---

Fault = Callable[[Evidence], Evidence]


def _told_more(**more: list[Any]) -> Fault:
    """Somebody was told something that did not happen."""

    def fault(evidence: Evidence) -> Evidence:
        history = copy.copy(evidence.history)
        for name, items in more.items():
            setattr(history, name, [*getattr(history, name), *items])
        return replace(evidence, history=history)

    return fault


def _first(evidence: Evidence, **changes: Any) -> Evidence:
    """The first answer was another one than the log's."""
    history = copy.copy(evidence.history)
    history.answers = [replace(history.answers[0], **changes), *history.answers[1:]]
    return replace(evidence, history=history)


def _rows(name: str, change: Callable[[Any], Any]) -> Fault:
    """One row of a noun becomes several, or none."""

    def fault(evidence: Evidence) -> Evidence:
        rows = getattr(evidence, name)
        return replace(evidence, **{name: (*change(rows[0]), *rows[1:])})

    return fault


def _changed(**changes: Any) -> Callable[[Any], Any]:
    return lambda row: [msgspec.structs.replace(row, **changes)]


def _again(**changes: Any) -> Callable[[Any], Any]:
    return lambda row: [row, msgspec.structs.replace(row, **changes)]


def _event(change: Callable[[Event], list[Event]]) -> Fault:
    def fault(evidence: Evidence) -> Evidence:
        middle = len(evidence.events) // 2
        events = evidence.events
        return replace(evidence, events=(*events[:middle], *change(events[middle]), *events[middle + 1 :]))

    return fault


def _live_twice(evidence: Evidence) -> Evidence:
    other = next(release for release in evidence.releases if release.state != "live")
    rows = (msgspec.structs.replace(row, state="live") if row is other else row for row in evidence.releases)
    return replace(evidence, releases=tuple(rows))


def _old_generation(evidence: Evidence) -> Evidence:
    """The last answer of a boot that saw two generations is of the first."""
    newest = max(evidence.records, key=lambda record: (record.epoch, record.generation, record.at_us))
    record = msgspec.structs.replace(newest, generation=0)
    return replace(evidence, records=tuple(record if one is newest else one for one in evidence.records))


def _undone_answers(evidence: Evidence) -> Evidence:
    last = max(evidence.history.answers, key=lambda answer: answer.sent_s)
    return _told_more(undos=[Undo(last.sent_s - 1.0, last.release, None, ())])(evidence)


def _unadopted(evidence: Evidence) -> Evidence:
    gone = next(release.id for release in evidence.releases if release.state != "live")
    return _told_more(undos=[Undo(1e12, gone, "ov_none", ())])(evidence)


def _file(evidence: Evidence) -> Evidence:
    return replace(evidence, file=msgspec.structs.replace(evidence.file, epoch=evidence.file.epoch + 1))


def _twice_placed(evidence: Evidence) -> Evidence:
    return replace(evidence, placed={**evidence.placed, next(iter(evidence.placed)): 2})


NOBODY = "01900000-0000-7000-8000-000000000000"
FAULTS: list[tuple[str, Fault]] = [
    ("nothing_bad_was_answered", _told_more(offences=["/predict was answered with 500"])),
    ("nothing_bad_was_answered", lambda evidence: replace(evidence, seen=("worker died by itself",))),
    ("acknowledged_predictions_are_logged_once", lambda evidence: _first(evidence, prediction_id=NOBODY)),
    ("acknowledged_predictions_are_logged_once", lambda evidence: _first(evidence, prediction=0.123456789)),
    ("acknowledged_predictions_are_logged_once", _rows("records", _again())),
    ("acknowledged_labels_are_kept_once", lambda evidence: replace(evidence, feedback=evidence.feedback[1:])),
    ("acknowledged_labels_are_kept_once", _rows("feedback", _again(id="another"))),
    ("acknowledged_labels_are_kept_once", lambda evidence: _told_more(
        labels=[Label(NOBODY, 1.0, evidence.history.watermark + timedelta(days=1))])(evidence)),
    ("acknowledged_triggers_are_kept_and_run_once", _told_more(triggers=["tr_lost"])),
    ("acknowledged_triggers_are_kept_and_run_once", _rows("runs", _again(id=RunId("another")))),
    ("acknowledged_undos_hold", _undone_answers),
    ("acknowledged_undos_hold", _unadopted),
    ("every_answer_is_of_one_published_route", _rows("records", _changed(generation=7_777_700))),
    ("every_answer_is_of_one_published_route", _rows("records", _changed(release=ReleaseId("rel_other")))),
    ("every_answer_is_of_one_published_route", _rows("records", _changed(propensity=0.5))),
    ("generations_never_decrease", _old_generation),
    ("one_release_is_live_and_the_route_is_it", _live_twice),
    ("one_release_is_live_and_the_route_is_it", _rows("routes", _changed(stable=ReleaseId("rel_other")))),
    ("the_route_file_equals_the_rows", _file),
    ("gateways_serve_the_newest_generation", lambda evidence: replace(evidence, served=({}, {}))),
    ("gateways_serve_the_newest_generation", lambda evidence: replace(evidence, served=())),
    ("the_chain_holds_and_edges_match", _event(lambda event: [msgspec.structs.replace(event, facts={**event.facts, "a": 1})])),
    ("the_chain_holds_and_edges_match", _event(lambda _: [])),
    ("the_chain_holds_and_edges_match", lambda evidence: replace(evidence, edges=evidence.edges[1:])),
    ("a_run_has_one_outcome", _rows("versions", _again(id=ModelVersionId("another")))),
    ("a_run_has_one_outcome", _rows("verdicts", _again(id="another"))),
    ("a_run_has_one_outcome", _rows("releases", _again(id=ReleaseId("another")))),
    ("rows_and_events_tell_the_same", _live_twice),
    ("rows_and_events_tell_the_same", lambda evidence: replace(
        evidence, runs=tuple(msgspec.structs.replace(run, state="killed") for run in evidence.runs))),
    ("rows_and_events_tell_the_same", _rows("rollouts", _changed(state="shadow"))),
    ("every_record_lies_in_one_place", _twice_placed),
    ("every_record_lies_in_one_place", _rows("segments", _changed(first=3))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "fault"), FAULTS, ids=[f"{number}-{name}" for number, (name, _) in enumerate(FAULTS)]
)
def test_a_planted_fault_is_found(outcome: Outcome, check: str, fault: Fault) -> None:
    found = checks.wrong(fault(outcome.evidence))

    assert any(said.startswith(f"{check}: ") for said in found), found


def test_every_check_can_fail() -> None:
    assert {name for name, _ in FAULTS} == {check.__name__ for check in checks.CHECKS}


def test_a_doctored_ledger_row_is_found(outcome: Outcome) -> None:
    environ = dict(outcome.environ)
    if "ANDON_DATABASE_URL" in environ:
        import psycopg

        with psycopg.connect(environ["ANDON_DATABASE_URL"], autocommit=True) as connection:
            connection.execute("UPDATE events SET actor = 'act_somebody' WHERE seq = 7")
    else:
        with sqlite3.connect(outcome.layout.database) as database:
            database.execute("UPDATE events SET actor = 'act_somebody' WHERE seq = 7")

    with (
        OpenWorkspace(outcome.layout, settings_from(environ)) as ws,
        pytest.raises(LedgerBroken, match="event 7"),
    ):
        verify(ws.store)
