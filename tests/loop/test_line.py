"""A line from a table to a live model, and everything that stops it."""

from __future__ import annotations

import msgspec
import pytest

from andon.core.errors import PolicyError
from andon.core.policy import read_policy
from andon.governance.audit import verify
from tests.loop.conftest import Project


@pytest.mark.capability("L1")
def test_a_run_takes_a_table_to_a_live_model_with_all_that_made_it(project: Project) -> None:
    run = project.run()

    live = project.live()
    assert run.state == "finished"
    assert live is not None
    assert (live.model, live.number, live.run) == ("churn", 1, run.id)
    version = project.ws.store.read(lambda reader: reader.model_versions.get(live.model_version))
    assert (version.dataset_version, version.state) == (run.dataset_version, "eligible")
    assert {run.code, run.environment, run.seal, run.dataset_version}.isdisjoint({None})
    metrics = project.ws.store.read(lambda reader: reader.metrics.latest([run]))[run.number]
    low, auc, high = (metrics[key].value for key in ("auc_low", "auc", "auc_high"))
    assert 0.65 < low < auc < high < 1.0
    assert verify(project.ws.store).ok


def test_runs_of_a_line_are_in_its_experiment_numbered_and_sealed_once(project: Project) -> None:
    first, second = project.run(), project.run()

    experiments = project.ws.store.read(lambda reader: reader.experiments.select(order=("number",)))
    assert [(row.id, row.name) for row in experiments] == [("0", "Default"), ("1", "churn")]
    assert [(run.number, run.experiment, run.name, run.seals) for run in (first, second)] == [
        (1, "1", "line-1", 1),
        (2, "1", "line-2", 1),
    ]
    params = project.ws.store.read(lambda reader: reader.params.of([second.number]))[second.number]
    assert params["seed"] == str(second.seed)


@pytest.mark.capability("C16")
def test_the_same_data_code_and_seed_make_the_same_model(project: Project) -> None:
    first, second = project.run(), project.run()

    versions = project.ws.store.read(lambda reader: reader.model_versions.select(order=("number",)))
    assert first.dataset_version == second.dataset_version
    assert len({version.digest for version in versions}) == 1


@pytest.mark.capability("A6")
def test_rows_that_break_the_contract_stop_the_run_and_raise_an_alert(project: Project) -> None:
    project.run()
    lines = (project.folder / "customers.csv").read_text().splitlines()
    broken = [lines[0], *(line.replace("basic", "").replace("plus", "") for line in lines[1:])]
    (project.folder / "customers.csv").write_text("\n".join(broken) + "\n")

    run = project.run()

    assert run.state == "blocked"
    assert run.model_version is None
    assert run.error is not None
    assert "plan" in run.error
    (alert,) = project.ws.store.read(lambda reader: reader.alerts.select({"monitor": "contract"}))
    report = msgspec.json.decode(project.ws.blobs.get(alert.evidence))
    assert report["violations"]
    assert project.live() is not None


def test_a_source_that_is_not_there_fails_the_run_and_is_named(project: Project) -> None:
    (project.folder / "customers.csv").unlink()

    run = project.run()

    assert run.state == "failed"
    assert run.error is not None
    assert "customers.csv" in run.error


def test_an_entry_that_cannot_be_imported_is_refused_before_a_run(project: Project) -> None:
    project.edit("andon.toml", "churn:pipeline", "chrun:pipeline")

    with pytest.raises(PolicyError, match=r"chrun\.py"):
        project.run()


def test_an_entry_that_raises_fails_the_run_with_its_line(project: Project) -> None:
    project.edit(
        "churn.py",
        "    table = rows.select(expressions)\n",
        "    raise ValueError('no luck')\n    table = rows\n",
    )

    run = project.run()

    assert run.state == "failed"
    assert run.error is not None
    assert "no luck" in run.error
    assert "churn.py, line" in run.error


def test_a_missing_policy_says_what_to_do(project: Project) -> None:
    (project.folder / "andon.toml").unlink()

    with pytest.raises(PolicyError, match="andon init"):
        read_policy(project.folder)


@pytest.mark.capability("L2")
def test_shuffled_labels_are_refused_by_the_gate_and_the_live_model_stays(project: Project) -> None:
    project.run()

    project.run("shuffled-labels")

    releases = project.ws.store.read(lambda reader: reader.releases.select(order=("created_at",)))
    assert [release.state for release in releases] == ["live", "refused"]
    assert project.live() == releases[0]
