"""What must hold at the end, each rule by itself: a check looks at the evidence and says what is wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from andon.core.clock import to_us
from andon.core.entities import Run
from andon.core.ids import node, split_node
from andon.web.mlflow.runs import info
from tests.chaos.tracking_evidence import Evidence
from tests.chaos.tracking_journal import Place, RunJournal
from tests.chaos.tracking_load import SEARCHED


def nothing_bad_was_answered(evidence: Evidence) -> Iterator[str]:
    """No 500, no refusal of a good request, no read that lacked what was acknowledged before."""
    yield from evidence.offences


def acknowledged_runs_are_there(evidence: Evidence) -> Iterator[str]:
    """Each is there as it was begun, and of the same request there are no more than it was sent."""
    by_nonce = _runs_by_nonce(evidence)
    for run in _runs(evidence):
        made = by_nonce.pop(run.nonce, [])
        if run.ident is not None and run.ident not in {each.id for each in made}:
            yield f"run {run.ident} was acknowledged and is gone"
        if len(made) > run.sent:
            yield f"{run.nonce} was asked for {run.sent} times and made {len(made)} times"
        for each in made:
            if (each.name, to_us(each.started_at or each.created_at) // 1000) != (run.name, run.start_ms):
                yield f"run {each.id} is half: {each.name}, {each.started_at}"
            if evidence.tags[each.id].get("mlflow.runName") != run.name:
                yield f"run {each.id} has the tags {evidence.tags[each.id]}"
    for nonce, made in by_nonce.items():
        yield f"nobody asked for {nonce}: {[each.id for each in made]}"


def batches_are_there_whole_or_not_at_all(evidence: Evidence) -> Iterator[str]:
    """All that one request wrote, if it was acknowledged; all or nothing of it, if it was not."""
    for run in _known(evidence):
        ident = run.ident or ""
        histories = {key: set(evidence.histories.get((ident, key), ())) for key in _keys(run)}
        for batch in run.batches:
            there = [
                *(place in histories[key] for key, places in batch.points.items() for place in places),
                *(evidence.params.get(ident, {}).get(key) == value for key, value in batch.params.items()),
                *(evidence.tags.get(ident, {}).get(key) == value for key, value in batch.tags.items()),
            ]
            if all(there):
                continue
            if batch.acknowledged:
                yield f"run {ident} lost {there.count(False)} of {len(there)} things that one request wrote: {batch!r:.300}"
            elif any(there):
                yield f"run {ident} has {there.count(True)} of {len(there)} things that one request wrote: {batch!r:.300}"


def no_point_comes_from_nowhere(evidence: Evidence) -> Iterator[str]:
    """Each point was sent, and is there once."""
    sent: dict[tuple[str, str], set[Place]] = defaultdict(set)
    for run in _known(evidence):
        for batch in run.batches:
            for key, places in batch.points.items():
                sent[run.ident or "", key].update(places)
    for where, places in evidence.histories.items():
        if strange := [place for place in places if place not in sent[where]]:
            yield f"{where} has points that nobody sent: {strange[:3]}"
        if len(places) != len(set(places)):
            yield f"{where} has points twice"


def the_latest_point_is_the_greatest_of_the_history(evidence: Evidence) -> Iterator[str]:
    """Of step, then time, then value."""
    for where, places in evidence.histories.items():
        if evidence.latest[where] != max(places):
            yield f"the latest of {where} is {evidence.latest[where]}, the history's greatest is {max(places)}"


def acknowledged_tags_and_states_hold(evidence: Evidence) -> Iterator[str]:
    """The last that was acknowledged, or one that was sent after it."""
    for run in _known(evidence):
        row = evidence.runs.get(run.ident or "")
        if row is None:
            continue
        tags = evidence.tags[row.id]
        for key, held in run.tags.items():
            if not held.allows(tags.get(key)):
                yield f"the tag {key} of {row.id} is {tags.get(key)}, not {held}"
        if not run.status.allows(_status(row)):
            yield f"run {row.id} is {_status(row)}, not {run.status}"
        if not run.deleted.allows(row.deleted_at is not None):
            yield f"run {row.id} is deleted: {row.deleted_at is not None}, not {run.deleted}"


def acknowledged_files_are_there_and_no_half_ones(evidence: Evidence) -> Iterator[str]:
    """The bytes that were acknowledged last, or those of one upload after them; and nothing under another name."""
    expected = {f"{run.root}/{path}": held for run in _known(evidence) for path, held in run.files.items()}
    for path, held in expected.items():
        row = evidence.artifacts.get(path)
        if not held.allows(None if row is None else row.digest):
            yield f"{path} is {row and row.digest}, not {held}"
    for path in sorted(set(evidence.artifacts) - set(expected)):
        yield f"nobody uploaded {path}"
    for path, digest in evidence.served.items():
        row = evidence.artifacts.get(path)
        if row is not None and digest != row.digest:
            yield f"{path} is given out as {digest}, not as {row.digest}"


def acknowledged_versions_are_there_with_their_files(evidence: Evidence) -> Iterator[str]:
    """Each under its number, numbers without a gap, and of the same request no more than it was sent."""
    by_nonce = defaultdict(list)
    numbers = defaultdict(list)
    for row in evidence.versions:
        by_nonce[evidence.version_tags[row.id].get("nonce", "")].append(row)
        numbers[row.model].append(row.number)
    for model, found in numbers.items():
        if sorted(found) != list(range(1, len(found) + 1)):
            yield f"the versions of {model} are numbered {sorted(found)}"
    for journal in evidence.journals:
        for version in journal.versions:
            made = by_nonce.pop(version.nonce, [])
            if version.number is not None and version.number not in {row.number for row in made}:
                yield f"{version.model}/{version.number} was acknowledged and is gone"
            if len(made) > version.sent:
                yield f"{version.nonce} was asked for {version.sent} times and made {len(made)} times"
            for row in made:
                if (row.model, row.source, row.run) != (version.model, version.source, version.run):
                    yield f"{row.model}/{row.number} is of {row.source}, not of {version.source}"
                if evidence.version_files.get(row.id, version.files) != version.files:
                    yield f"{row.model}/{row.number} has the files {evidence.version_files[row.id]}, not {version.files}"
                if row.number == version.number and not version.stage.allows(row.stage):
                    yield f"{row.model}/{row.number} is in stage {row.stage}, not {version.stage}"
    for nonce, made in by_nonce.items():
        yield f"nobody asked for {nonce}: {[row.id for row in made]}"


def acknowledged_aliases_hold(evidence: Evidence) -> Iterator[str]:
    """As `acknowledged_tags_and_states_hold`."""
    for journal in evidence.journals:
        for where, held in journal.aliases.items():
            if not held.allows(evidence.aliases.get(where)):
                yield f"the alias {where} points at {evidence.aliases.get(where)}, not {held}"


def searches_agree_with_the_histories(evidence: Evidence) -> Iterator[str]:
    """By a metric: those whose latest point is over a bound, and in its order."""
    for search in evidence.searches:
        values = {
            ident: float(evidence.latest[ident, SEARCHED][2])
            for ident, run in evidence.runs.items()
            if run.experiment == search.experiment
            and run.deleted_at is None
            and (ident, SEARCHED) in evidence.latest
        }
        expected = sorted(
            (ident for ident in values if values[ident] > search.over), key=lambda ident: -values[ident]
        )
        if list(search.runs) != expected:
            missing, strange = set(expected) - set(search.runs), set(search.runs) - set(expected)
            yield f"a search over {search.over} in {search.experiment} lacks {missing}, has {strange}, or is in disorder"


def seals_verify(evidence: Evidence) -> Iterator[str]:
    """A sealed run is what its seal says, and the ledger says the same seal."""
    said = {}
    for event in evidence.events:
        if event.kind == "run.sealed":
            said[event.subject] = (event.facts["number"], event.facts["seal"])
    for run in evidence.runs.values():
        if run.seal is None:
            if run.state in ("finished", "failed", "killed"):
                yield f"run {run.id} ended and has no seal"
            continue
        if said.get(node("run", run.id)) != (run.seals, run.seal):
            yield f"run {run.id} has seal {run.seals}, {run.seal}; the ledger says {said.get(node('run', run.id))}"
        if evidence.seals.get(run.id, run.seal) != run.seal:
            yield f"run {run.id} is not what its seal {run.seal} says, but {evidence.seals[run.id]}"


def rows_and_events_tell_the_same(evidence: Evidence) -> Iterator[str]:
    """Each run and version was created once in the ledger, and what it says of deleting and of aliases is so."""
    made = ("run.created", "model_version.registered")
    created = Counter(event.subject for event in evidence.events if event.kind in made)
    rows = Counter(node("run", run.id) for run in evidence.runs.values())
    rows += Counter(node("model_version", row.id) for row in evidence.versions)
    if created != rows:
        yield f"rows without an event or events without a row: {(created - rows) + (rows - created)}"
    hidden = {}
    for event in evidence.events:
        if event.kind in ("run.deleted", "run.restored"):
            hidden[event.subject] = event.kind == "run.deleted"
    for run in evidence.runs.values():
        if hidden.get(node("run", run.id), False) != (run.deleted_at is not None):
            yield f"run {run.id} is deleted or not, and the ledger says otherwise"
    aliases = {}
    for event in evidence.events:
        if event.kind in ("alias.moved", "alias.deleted"):
            where = (split_node(event.subject)[1], str(event.facts["alias"]))
            aliases[where] = event.facts["number"] if event.kind == "alias.moved" else None
    if (
        said := {where: number for where, number in aliases.items() if number is not None}
    ) != evidence.aliases:
        yield f"aliases are {evidence.aliases}, and the ledger says {said}"


def nothing_is_left_of_uploads_that_died(evidence: Evidence) -> Iterator[str]:
    """Temporary files go when they are old."""
    for name in evidence.unswept:
        yield f"{name} stays for good"


CHECKS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    nothing_bad_was_answered, acknowledged_runs_are_there, batches_are_there_whole_or_not_at_all, no_point_comes_from_nowhere,
    the_latest_point_is_the_greatest_of_the_history, acknowledged_tags_and_states_hold,
    acknowledged_files_are_there_and_no_half_ones, acknowledged_versions_are_there_with_their_files, acknowledged_aliases_hold,
    searches_agree_with_the_histories, seals_verify, rows_and_events_tell_the_same, nothing_is_left_of_uploads_that_died,
)  # fmt: skip


def wrong(evidence: Evidence) -> list[str]:
    """All that is wrong, each with the name of its check before it."""
    return [f"{check.__name__}: {said}" for check in CHECKS for said in check(evidence)]


def _runs(evidence: Evidence) -> Iterator[RunJournal]:
    for journal in evidence.journals:
        yield from journal.runs


def _known(evidence: Evidence) -> Iterator[RunJournal]:
    return (run for run in _runs(evidence) if run.ident is not None)


def _keys(run: RunJournal) -> set[str]:
    return {key for batch in run.batches for key in batch.points}


def _runs_by_nonce(evidence: Evidence) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = defaultdict(list)
    for ident, run in evidence.runs.items():
        found[evidence.tags[ident].get("nonce", "")].append(run)
    return found


def _status(run: Run) -> tuple[str, int | None]:
    told = info(run, None)
    return told.status, told.end_time
