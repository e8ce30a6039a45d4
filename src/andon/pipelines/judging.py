"""Judging what somebody asks to release: a version that no run of the line has judged for this endpoint and policy.

A run judges the model it made. A person or an MLflow client may name any version: one of an older policy, one that was
judged against a model which is not live any more, one that was copied from another model, or files that a client logged. The
same gates judge it here, on the newest rows that neither it nor the live model was trained on. What cannot be loaded, or
cannot be judged on such rows, gets a verdict too: it does not pass, and says why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

import msgspec
import polars as pl

from andon.core.canonical import digest_bytes
from andon.core.entities import DatasetVersion, ModelVersion, Release, Verdict
from andon.core.errors import AndonError, Corrupt, Invalid, LeaseLost, MissingExtra, NotFound
from andon.core.ids import ActorId
from andon.core.policy import Policy, parse_policy
from andon.data.datasets import open_version
from andon.data.split import Split, split
from andon.pipelines.workspace import OpenWorkspace
from andon.registry.evaluation import Evidence, Judged, Window, evaluate
from andon.registry.gates import Judgement, Sanity, judge
from andon.registry.packaging import LoadedModel, install, load
from andon.registry.packaging.package import FORMAT
from andon.registry.releases import live_release
from andon.registry.requests import verdict_of
from andon.registry.versions import give_verdict
from andon.store.ports import Reader, Transaction

log = logging.getLogger("andon.worker")
_CANNOT = (Corrupt, Invalid, MissingExtra, NotFound)


class _Case(msgspec.Struct, frozen=True):
    """What a judgement is made of."""

    version: ModelVersion
    live: ModelVersion | None
    rows: DatasetVersion | None
    until: datetime | None


def wants_judging(reader: Reader, release: Release) -> bool:
    """Whether a release that is being judged has no verdict to go by.

    One that a run asked for has the run's verdict, and is refused when another version has gone live since. What a person
    asks for is judged again then: they have seen what is live.
    """
    if release.state not in ("judging", "waiting"):
        return False
    verdict = _verdict(reader, release)
    if verdict is None:
        return True
    live = live_release(reader, release.endpoint)
    other = (live.model_version if live else None) != verdict.against
    return other and release.cause.startswith("actor:")


def execute(
    ws: OpenWorkspace, release: Release, policy: Policy, actor: ActorId, fence: Callable[[Transaction], None]
) -> None:
    """Judge a release's version and put the verdict on record; what cannot be written is tried again by the reconciler.

    Args:
        ws: the workspace.
        release: what was asked for.
        policy: the release's.
        actor: who is on record for the judgement.
        fence: raises LeaseLost inside a transaction when another worker has taken over.
    """
    try:
        case = ws.store.read(lambda reader: _case(reader, release, policy))
        judgement, evidence = _judged(ws, case, policy)
        blob = ws.blobs.put(evidence)
    except (AndonError, OSError) as error:
        log.error("release %s could not be judged: %s", release.id, error)
        return

    def work(tx: Transaction) -> None:
        fence(tx)
        if wants_judging(tx, tx.releases.get(release.id)):
            give_verdict(
                tx, tx.model_versions.get(case.version.id), endpoint=release.endpoint, policy=release.policy,
                judgement=judgement, evidence=blob, against=case.live.id if case.live else None, actor=actor,
                at=ws.clock.now(),
            )  # fmt: skip

    try:
        ws.store.write(work)
    except LeaseLost:
        pass  # the worker that took over judges it again
    except (AndonError, OSError) as error:
        log.error("the verdict on release %s could not be written: %s", release.id, error)


def _verdict(reader: Reader, release: Release) -> Verdict | None:
    return verdict_of(
        reader, reader.model_versions.get(release.model_version), release.endpoint, release.policy
    )


def _case(reader: Reader, release: Release, policy: Policy) -> _Case:
    version = reader.model_versions.get(release.model_version)
    live = live_release(reader, release.endpoint)
    newest = reader.dataset_versions.select(
        {"dataset": policy.source.name, "state": "valid"}, order=("-number",), limit=1
    )
    line = reader.lines.get(release.line)
    return _Case(
        version=version, live=reader.model_versions.get(live.model_version) if live else None,
        rows=newest[0] if newest else None, until=line.watermark if policy.clock == "data" else None,
    )  # fmt: skip


def _judged(ws: OpenWorkspace, case: _Case, policy: Policy) -> tuple[Judgement, bytes]:
    """The judgement and its evidence."""
    try:
        with _loaded(ws, case.version) as candidate:
            frame, parts = _window(ws, case, policy)
            if case.live is None:
                return _evaluated(policy, candidate, None, frame, parts)
            with _loaded(ws, case.live) as live:
                return _evaluated(policy, candidate, live, frame, parts)
    except _CANNOT as error:
        judgement = judge(policy.gate, candidate=None, live=None, sanity=Sanity(failure=str(error)))
        return judgement, _evidence_of_nothing(case, policy, judgement)


def _evaluated(
    policy: Policy, candidate: LoadedModel, live: LoadedModel | None, frame: pl.DataFrame, parts: Split
) -> tuple[Judgement, bytes]:
    found = evaluate(
        policy.gate, candidate=candidate, live=live, frame=frame, label=policy.source.label,
        unlabelled=parts.unlabelled, policy=policy.digest, data_from=parts.holdout_from, data_until=parts.holdout_until,
    )  # fmt: skip
    return found.judgement, found.evidence


def _loaded(ws: OpenWorkspace, version: ModelVersion) -> LoadedModel:
    """A version's model.

    Raises:
        Invalid: it is no package that this process could load without running somebody's code.
        Corrupt: its bytes are not what they were.
    """
    what = f"{version.model}/{version.number}"
    if not version.held:
        raise Invalid(
            f"the files of {what} are not held: only its address is known, {(version.source or 'none')[:200]}",
            hint="log the model to this workspace",
        )
    try:
        form = msgspec.json.decode(ws.blobs.get(version.digest), type=dict[str, object]).get("format")
    except msgspec.DecodeError:
        form = None
    if form != FORMAT:
        raise Invalid(
            f"{what} is a folder of files that a client logged, and gates load packages only: they never unpickle",
            hint="train it in a line, which makes a package",
        )
    return load(install(ws.blobs, version.digest, ws.layout.models))


def _window(ws: OpenWorkspace, case: _Case, policy: Policy) -> tuple[pl.DataFrame, Split]:
    """Labelled rows that neither model was trained on.

    Raises:
        Invalid: there are none, or nobody can tell.
    """
    what = f"{case.version.model}/{case.version.number}"
    if case.rows is None:
        raise Invalid(
            f"there are no rows of {policy.source.name!r} to judge {what} by", hint="run the line first"
        )
    source = policy.source
    parts = split(
        open_version(ws.blobs, case.rows), time=source.time, label_time=source.label_time, label=source.label,
        holdout=policy.train.holdout, window=policy.train.window, until=case.until, key=source.key, seed=policy.train.seed,
    )  # fmt: skip
    models = [case.version, *([case.live] if case.live else [])]
    if source.time is None:
        _check_split(ws, models, policy)
        return parts.holdout, parts
    ends = [model.data_until for model in models]
    if None in ends:
        raise Invalid(
            f"it is not on record until when {what} or the live model was trained", hint="train it in a line"
        )
    return parts.holdout.filter(pl.col(source.time) >= max(end for end in ends if end is not None)), parts


def _check_split(ws: OpenWorkspace, models: list[ModelVersion], policy: Policy) -> None:
    """That models were trained with the holdout of this policy held back: without times nothing else tells.

    Raises:
        Invalid: one was not.
    """
    for model in models:
        run = ws.store.read(lambda reader, model=model: reader.runs.find(model.run) if model.run else None)  # type: ignore[misc]
        theirs = (
            parse_policy(ws.blobs.get(run.policy).decode()).train if run is not None and run.policy else None
        )
        ours = policy.train
        if theirs is None or (theirs.seed, theirs.holdout) != (ours.seed, ours.holdout):
            raise Invalid(
                f"{model.model}/{model.number} was trained with another holdout than the policy's, so it may have seen"
                " the rows that would judge it",
                hint="train it again under this policy",
            )


def _evidence_of_nothing(case: _Case, policy: Policy, judgement: Judgement) -> bytes:
    """The evidence of a judgement that saw no rows."""
    return msgspec.json.encode(
        Evidence(
            policy=policy.digest,
            window=Window(rows=0, unlabelled=0, digest=digest_bytes(b""), data_from=None, data_until=None),
            candidate=Judged(digest=case.version.digest, metrics={}), live=None, checks=judgement.checks,
            passed=judgement.passed, summary=judgement.summary, rules={}, versions={},
        )
    )  # fmt: skip
