"""Model versions and verdicts as rows of the ledger: who made a model, of what, and what the gates said of it."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from andon.core.canonical import Digest
from andon.core.entities import ModelVersion, Verdict
from andon.core.errors import Invalid
from andon.core.events import EventDraft
from andon.core.ids import ActorId, ModelVersionId, RunId, VerdictId, check_name, new_id, node
from andon.core.states import advance
from andon.registry.gates import Judgement
from andon.registry.models import ensure_model, touch
from andon.store.ports import Transaction, Where


def register_version(
    tx: Transaction,
    *,
    model: str,
    digest: Digest,
    actor: ActorId,
    at: datetime,
    run: RunId | None = None,
    dataset_version: Digest | None = None,
    profile: Digest | None = None,
    data_from: datetime | None = None,
    data_until: datetime | None = None,
) -> ModelVersion:
    """Make a package the next version of a model. The same package from the same run again is the same version.

    Args:
        tx: the transaction in which the run ends.
        model: name of the model; its versions count from 1. A model of a new name is registered first.
        digest: the package's manifest, which is what the version is.
        actor: who is on record for it.
        at: wall time.
        run: what made it, if that is known; without one every call makes a version.
        dataset_version, profile: what it was trained on, and what its monitors compare with.
        data_from, data_until: domain time of the training rows, [from, until).

    Raises:
        Invalid: the model's name cannot be one.
    """
    check_name("model", model)
    same: dict[str, Where] = {"model": model, "run": run, "digest": digest, "deleted_at": None}
    known = tx.model_versions.select(same, limit=1) if run else []
    if known:
        return known[0]
    ensure_model(tx, model, actor, at)
    newest = tx.model_versions.select({"model": model}, order=("-number",), limit=1)
    version = tx.model_versions.add(
        ModelVersion(
            id=ModelVersionId(new_id("model_version")), model=model, number=newest[0].number + 1 if newest else 1,
            digest=digest, state="candidate", run=run, dataset_version=dataset_version, profile=profile, actor=actor,
            created_at=at, data_from=data_from, data_until=data_until,
        )
    )  # fmt: skip
    touch(tx, model, at)
    tx.ledger.append(
        EventDraft(
            kind="model_version.registered", actor=actor, at=at, subject=node("model_version", version.id),
            inputs=(
                *([node("run", run)] if run else []),
                *([node("dataset_version", dataset_version)] if dataset_version else []),
            ),
            data_at=data_until,
            facts={"model": model, "number": version.number, "digest": digest, "profile": profile},
        )
    )  # fmt: skip
    return version


def give_verdict(
    tx: Transaction,
    version: ModelVersion,
    *,
    endpoint: str,
    policy: Digest,
    judgement: Judgement,
    evidence: Digest,
    against: ModelVersionId | None,
    actor: ActorId,
    at: datetime,
) -> Verdict:
    """Put on record what gates said of a version for an endpoint under a policy, and what that makes of the version.

    The first verdict makes a candidate eligible or rejects it. Later ones, for other endpoints or policies, leave that
    as it is; a release looks for the verdict of its own endpoint and policy, never at the version's state.

    Args:
        tx: a transaction.
        version: what was judged.
        endpoint, policy: what it was judged for and by; the verdict holds for these and the version's digest only.
        judgement: the checks' outcome.
        evidence: blob of every number behind it.
        against: the live version it was compared with, if there was one.
        actor: who is on record for the judgement.
        at: wall time.

    Raises:
        Invalid: the version was judged against itself.
    """
    if against == version.id:
        raise Invalid(f"{version.model}/{version.number} was compared with itself", hint="it is live already")
    verdict = tx.verdicts.add(
        Verdict(
            id=VerdictId(new_id("verdict")), model_version=version.id, version_digest=version.digest, endpoint=endpoint,
            policy=policy, passed=judgement.passed, evidence=evidence, summary=judgement.summary, against=against,
            created_at=at,
        )
    )  # fmt: skip
    tx.ledger.append(
        EventDraft(
            kind="verdict.given", actor=actor, at=at, subject=node("verdict", verdict.id),
            inputs=(node("model_version", version.id), node("policy", policy)),
            facts={"passed": verdict.passed, "endpoint": endpoint, "digest": version.digest, "evidence": evidence,
                   "against": against, "checks": len(judgement.checks),
                   "not_passed": sum(check.verdict != "pass" for check in judgement.checks)},
            note=judgement.summary,
        )
    )  # fmt: skip
    _mark(tx, version, verdict, actor, at)
    return verdict


def _mark(tx: Transaction, version: ModelVersion, verdict: Verdict, actor: ActorId, at: datetime) -> None:
    """The first verdict makes a candidate eligible or rejects it; later ones are on record and change no state."""
    row = tx.model_versions.get(version.id)
    if row.state != "candidate":
        return
    what = f"{row.model}/{row.number}"
    if verdict.passed:
        changed = replace(row, state=advance("model_version", what, row.state, "eligible"))
    else:
        changed = replace(
            row, state=advance("model_version", what, row.state, "rejected"), rejected_because=verdict.summary
        )
    tx.model_versions.change(changed)
    tx.ledger.append(
        EventDraft(
            kind=f"model_version.{changed.state}", actor=actor, at=at, subject=node("model_version", row.id),
            facts={"endpoint": verdict.endpoint, "verdict": verdict.id},
        )
    )  # fmt: skip
