"""kill -9 of the control process while trainings log, and a database that hangs up: nothing acknowledged is lost or half.

`ANDON_CHAOS_CYCLES` is how often (8 by default, two fifths of more than that on Postgres); `ANDON_CHAOS_SEED` plays the same
hand again. The checks themselves are tested below: each planted fault in the evidence of a real battery is found.
"""

from __future__ import annotations

import copy
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from andon.core.canonical import digest_bytes
from andon.core.ids import ModelVersionId, node
from andon.pipelines.workspace import OpenWorkspace
from andon.store.ports import Transaction
from andon.tracking.experiments import RUNS_AT_ONCE
from andon.tracking.runs import create_run
from tests.chaos import tracking_checks as checks
from tests.chaos.battery import quantile
from tests.chaos.conftest import SAID
from tests.chaos.house import until
from tests.chaos.tracking_battery import HANG_UP, Battery, Outcome
from tests.chaos.tracking_client import RawClient
from tests.chaos.tracking_evidence import Evidence
from tests.chaos.tracking_journal import Batch, Held, Journal, RunJournal, VersionJournal
from tests.chaos.tracking_load import SEARCHED
from tests.chaos.tracking_server import ControlProcess, environ_on

pytestmark = pytest.mark.chaos

CYCLES = int(os.environ.get("ANDON_CHAOS_CYCLES", "8"))


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get("ANDON_CHAOS_SEED") or secrets.randbelow(10**9))


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, seed: int) -> Outcome:
    """A battery that has ended."""
    url, cycles = None, CYCLES
    if request.param == "postgres":
        server, names = request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_names")
        url, cycles = new_database(server, next(names)), max(min(CYCLES, 8), CYCLES * 2 // 5)
    folder = tmp_path_factory.mktemp(f"tracking-{request.param}")
    try:
        ended = Battery(folder, environ_on(url), seed=seed, cycles=cycles).run()
    except BaseException as error:
        error.add_note(f"play it again with ANDON_CHAOS_SEED={seed} (the workspace is in {folder})")
        raise
    request.config.stash[SAID].append(f"tracking on {request.param}: {_told(ended, cycles)}")
    return ended


def new_database(server: str, name: str) -> str:
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


def _told(outcome: Outcome, cycles: int) -> str:
    figures, evidence = outcome.figures, outcome.evidence
    points = sum(len(places) for places in evidence.histories.values())
    hung_up = sum(figures.kills[moment] for moment in HANG_UP)
    lost = sum(count for name, count in figures.counts.items() if name.startswith("lost"))
    said = f"{cycles - hung_up} kills" + (f" and {hung_up} times no database" if hung_up else "")
    return (
        f"{said} (seed {outcome.seed}) in {figures.seconds:.0f} s, {figures.acknowledged:,} requests acknowledged, "
        f"{lost} without an answer, {figures.torn} uploads torn; {len(evidence.runs)} runs, {points:,} points, "
        f"{len(evidence.artifacts)} files, {len(evidence.versions)} versions, {len(evidence.seals)} seals read again; "
        f"{evidence.left} temporary files left to be swept; answers again after a kill in "
        f"{quantile(figures.back_s, 0.5):.1f} s (p95 {quantile(figures.back_s, 0.95):.1f} s)"
    )


@pytest.mark.capability("C1", "C6", "E1", "E2", "E5", "L7")
def test_what_was_acknowledged_is_there_and_nothing_is_half(outcome: Outcome) -> None:
    found = checks.wrong(outcome.evidence)

    by_check = {said.split(":")[0]: said for said in reversed(found)}
    assert not found, "\n".join(
        [
            f"{len(found)} faults with ANDON_CHAOS_SEED={outcome.seed}; the first of each check:",
            *by_check.values(),
        ]
    )


def test_the_battery_was_one(outcome: Outcome) -> None:
    """Every writer got on, requests were lost, and there was something of everything to lose."""
    evidence, figures = outcome.evidence, outcome.figures

    assert sum(figures.kills.values()) >= 8
    assert any(name.startswith("lost") for name in figures.counts)
    assert figures.torn
    assert all(len(journal.runs) > 1 for journal in evidence.journals)
    assert sum(len(places) for places in evidence.histories.values()) > 1000
    assert len(evidence.artifacts) > 20
    assert len(evidence.versions) > 2
    assert evidence.aliases
    assert evidence.seals
    assert any(search.runs for search in evidence.searches)


@pytest.mark.capability("C1", "L7")
def test_deleting_and_restoring_a_large_experiment_is_taken_up_where_a_kill_stopped_it(
    tmp_path: Path,
) -> None:
    """More runs than one transaction takes; one of them was deleted by itself before and stays so."""
    with ControlProcess(tmp_path, os.environ) as server, OpenWorkspace(server.layout) as ws:
        client = RawClient(server.port, server.token)
        experiment = client.post("experiments/create", {"name": "large"}).json["experiment_id"]
        runs = _many_runs(ws, experiment, 10 * RUNS_AT_ONCE)
        assert client.post("runs/delete", {"run_id": runs[7]}).status == 200
        for verb, before, after in (("delete", len(runs) - 1, 0), ("restore", 0, len(runs) - 1)):
            with ThreadPoolExecutor(1) as other:
                done = other.submit(client.post, f"experiments/{verb}", {"experiment_id": experiment})
                until("it has begun", lambda before=before: _active(ws, experiment) != before)  # type: ignore[misc]
                server.kill()
                server.start()
                assert done.result(60).status in (200, 404)  # 404: it was done, and the answer lost
            assert _active(ws, experiment) == after
        client.close()


def _many_runs(ws: OpenWorkspace, experiment: str, count: int) -> list[str]:
    """Runs of an experiment, made past the wire."""
    actor, at = ws.actor().id, ws.clock.now()

    def work(tx: Transaction) -> list[str]:
        made = [create_run(tx, experiment, actor=actor, at=at, name="x", tags={})[0].id for _ in range(count)]
        return [str(ident) for ident in made]

    return ws.store.write(work)


def _active(ws: OpenWorkspace, experiment: str) -> int:
    """How many runs of an experiment are not deleted."""
    where = {"experiment": experiment, "deleted_at": None}
    return ws.store.read(lambda reader: reader.runs.count(where))


# --- the checks, checked ---

Fault = Callable[[Evidence], Evidence]


def _journal(**more: Any) -> Fault:
    """A writer that knows of something more."""
    return lambda evidence: replace(evidence, journals=[*evidence.journals, Journal(**more)])


def _of_run(change: Callable[[RunJournal, Evidence], None]) -> Fault:
    """The last run with points, files and no doubts was told something else."""

    def fault(evidence: Evidence) -> Evidence:
        journals = copy.deepcopy(list(evidence.journals))
        runs = (run for journal in journals for run in journal.runs if run.ident and not run.status.maybe)
        run = next(
            run
            for run in runs
            if any(batch.acknowledged and {"loss", SEARCHED} & set(batch.points) for batch in run.batches)
        )
        change(run, evidence)
        return replace(evidence, journals=journals)

    return fault


def _a_run(**more: Any) -> RunJournal:
    return RunJournal(nonce="n", experiment="1", name="x", start_ms=1, **more)


def _without(name: str, **changed: Any) -> Fault:
    """One entry of a mapping is another, or none."""

    def fault(evidence: Evidence) -> Evidence:
        rows = dict(getattr(evidence, name))
        key = next(iter(rows))
        row = rows.pop(key)
        if changed:
            rows[key] = msgspec.structs.replace(row, **changed)
        return replace(evidence, **{name: rows})

    return fault


def _history(change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Fault:
    def fault(evidence: Evidence) -> Evidence:
        where = max(evidence.histories, key=lambda where: len(evidence.histories[where]))
        return replace(evidence, histories={**evidence.histories, where: change(evidence.histories[where])})

    return fault


def _half_batch(evidence: Evidence) -> Evidence:
    """Nobody answered a batch of which one point is there."""
    place = (0, 1, "0.5")

    def change(run: RunJournal, evidence: Evidence) -> None:
        known = next(iter(evidence.histories[run.ident or "", key] for key in ("loss", SEARCHED)
                          if (run.ident, key) in evidence.histories))  # fmt: skip
        run.batches.append(Batch({"loss": (known[0],), SEARCHED: (known[0], place)}))

    return _of_run(change)(evidence)


def _latest(evidence: Evidence) -> Evidence:
    where = max(evidence.histories, key=lambda where: len(evidence.histories[where]))
    return replace(evidence, latest={**evidence.latest, where: evidence.histories[where][0]})


def _file(evidence: Evidence) -> Evidence:
    path = next(iter(evidence.served))
    return replace(evidence, served={**evidence.served, path: "404"})


def _twice_registered(evidence: Evidence) -> Evidence:
    row = msgspec.structs.replace(evidence.versions[0], id=ModelVersionId("mv_other"))
    return replace(
        evidence, versions=[*evidence.versions, row],
        version_tags={**evidence.version_tags, "mv_other": evidence.version_tags[evidence.versions[0].id]},
    )  # fmt: skip


def _other_version_files(evidence: Evidence) -> Evidence:
    ident = next(iter(evidence.version_files))
    return replace(evidence, version_files={**evidence.version_files, ident: {}})


def _stage(evidence: Evidence) -> Evidence:
    journals = copy.deepcopy(list(evidence.journals))
    version = next(each for journal in journals for each in journal.versions if each.number)
    version.stage = Held("Nowhere")
    return replace(evidence, journals=journals)


def _search(evidence: Evidence) -> Evidence:
    most = max(evidence.searches, key=lambda search: len(search.runs))
    return replace(evidence, searches=[replace(most, runs=most.runs[:-1])])


def _seal(evidence: Evidence) -> Evidence:
    return replace(evidence, seals=dict.fromkeys(evidence.seals, digest_bytes(b"")))


def _without_seal(evidence: Evidence) -> Evidence:
    ident = next(iter(evidence.seals))
    run = msgspec.structs.replace(evidence.runs[ident], seal=None)
    return replace(evidence, runs={**evidence.runs, ident: run})


def _events(*kinds: str) -> Fault:
    """No such event was written."""
    return lambda evidence: replace(
        evidence, events=[each for each in evidence.events if each.kind not in kinds]
    )


def _more_events(kind: str) -> Fault:
    """An event that nothing followed."""

    def fault(evidence: Evidence) -> Evidence:
        there = {node("run", run.id) for run in evidence.runs.values() if run.deleted_at is None}
        event = next(each for each in evidence.events if each.kind == "run.created" and each.subject in there)
        return replace(evidence, events=[*evidence.events, msgspec.structs.replace(event, kind=kind)])

    return fault


FAULTS: list[tuple[str, Fault]] = [
    ("nothing_bad_was_answered", lambda evidence: replace(evidence, offences=["runs/create was answered with 500"])),
    ("acknowledged_runs_are_there", _journal(runs=[_a_run(ident="lost", sent=1)])),
    ("acknowledged_runs_are_there", _of_run(lambda run, _: setattr(run, "sent", 0))),
    ("acknowledged_runs_are_there", _of_run(lambda run, _: setattr(run, "start_ms", 1))),
    ("acknowledged_runs_are_there", _of_run(lambda run, _: setattr(run, "nonce", "other"))),
    ("batches_are_there_whole_or_not_at_all", _of_run(
        lambda run, _: run.batches.append(Batch({}, {"param": "lost"}, acknowledged=True)))),
    ("batches_are_there_whole_or_not_at_all", _of_run(
        lambda run, _: run.batches.append(Batch({"loss": ((0, 1, "0.5"),)}, acknowledged=True)))),
    ("batches_are_there_whole_or_not_at_all", _half_batch),
    ("batches_are_there_whole_or_not_at_all", _history(lambda places: places[len(places) // 2 :])),
    ("no_point_comes_from_nowhere", _history(lambda places: (*places, (-5, 1, "0.5")))),
    ("no_point_comes_from_nowhere", _history(lambda places: (*places, places[0]))),
    ("the_latest_point_is_the_greatest_of_the_history", _latest),
    ("acknowledged_tags_and_states_hold", _of_run(lambda run, _: run.tags.update(phase=Held("never")))),
    ("acknowledged_tags_and_states_hold", _of_run(lambda run, _: setattr(run, "status", Held(("FINISHED", 7))))),
    ("acknowledged_tags_and_states_hold", _of_run(lambda run, _: setattr(run, "deleted", Held(known=not run.deleted.known)))),
    ("acknowledged_files_are_there_and_no_half_ones", _without("artifacts")),
    ("acknowledged_files_are_there_and_no_half_ones", _without("artifacts", digest=digest_bytes(b"torn"))),
    ("acknowledged_files_are_there_and_no_half_ones", _of_run(lambda run, _: run.files.update(x=Held("sha256:lost")))),
    ("acknowledged_files_are_there_and_no_half_ones", _file),
    ("acknowledged_versions_are_there_with_their_files", _journal(
        versions=[VersionJournal("shared", "n", "runs:/x/y", "x", {}, number=7777, sent=1)])),
    ("acknowledged_versions_are_there_with_their_files", _twice_registered),
    ("acknowledged_versions_are_there_with_their_files", lambda evidence: replace(evidence, versions=evidence.versions[1:])),
    ("acknowledged_versions_are_there_with_their_files", _other_version_files),
    ("acknowledged_versions_are_there_with_their_files", _stage),
    ("acknowledged_aliases_hold", _journal(aliases={("shared", "champion"): Held(1)})),
    ("searches_agree_with_the_histories", _search),
    ("seals_verify", _seal),
    ("seals_verify", _without_seal),
    ("seals_verify", _events("run.sealed")),
    ("rows_and_events_tell_the_same", _events("run.created")),
    ("rows_and_events_tell_the_same", _events("model_version.registered")),
    ("rows_and_events_tell_the_same", _more_events("run.created")),
    ("rows_and_events_tell_the_same", _more_events("run.deleted")),
    ("rows_and_events_tell_the_same", _without("aliases")),
    ("nothing_is_left_of_uploads_that_died", lambda evidence: replace(evidence, unswept=["0123"])),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "fault"), FAULTS, ids=[f"{number}-{name}" for number, (name, _) in enumerate(FAULTS)]
)
def test_a_planted_fault_is_found(outcome: Outcome, check: str, fault: Fault) -> None:
    found = checks.wrong(fault(outcome.evidence))

    assert any(said.startswith(f"{check}: ") for said in found), found


def test_every_check_can_fail() -> None:
    assert {name for name, _ in FAULTS} == {check.__name__ for check in checks.CHECKS}
