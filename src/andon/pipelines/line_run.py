"""The story of one run, from source to verdict: ingest, admit, split, train, package, judge, register.

User code runs only inside the `ingest` and `train` steps. Everything the run makes is stored by content as it goes; rows and
events of its outcome are written in one transaction at the end, under the worker's lease, so a run that dies half-way
leaves nothing that counts and is simply begun again.
"""

from __future__ import annotations

import logging
import shutil
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec
import polars as pl

from andon.core.canonical import Digest, canonical, digest_bytes
from andon.core.clock import to_us
from andon.core.entities import DatasetVersion, ModelVersion, Point, Run, owner
from andon.core.errors import AndonError, ContractBroken, LeaseLost
from andon.core.events import EventDraft
from andon.core.ids import Node, node
from andon.core.lines import line_work
from andon.core.policy import Policy
from andon.core.states import RunState, advance
from andon.data.contracts import Contract, from_toml, infer, to_toml
from andon.data.datasets import commit_dataset
from andon.data.profiles import build_profile
from andon.data.sources import redact
from andon.data.split import Split, split
from andon.data.validation import check
from andon.monitoring.alerts import open_alert
from andon.pipelines import rehearsal
from andon.pipelines.code import capture_environment, materialise_code
from andon.pipelines.executor import run_step
from andon.pipelines.step import StepSpec
from andon.pipelines.workspace import OpenWorkspace
from andon.registry.evaluation import Evaluation, evaluate
from andon.registry.packaging import Package, build_package, decode_expression, infer_signature, install, load
from andon.registry.releases import in_progress, live_release, request_release
from andon.registry.versions import give_verdict, register_version
from andon.store.ports import Reader, Transaction

log = logging.getLogger("andon.worker")
Fence = Callable[[Transaction], None]
"""Raises LeaseLost inside a transaction when another worker has taken over."""


def execute(ws: OpenWorkspace, run: Run, policy: Policy, fence: Fence) -> None:
    """Carry a running run to its end; whatever happens is written down as its outcome.

    What cannot be written down leaves the run running, and the reconciler begins it again.
    """
    # Named by the fence too: a worker that was away for long must not touch what the next one works on.
    scratch = ws.layout.scratch / f"{run.id}-{run.fence}"
    for left in ws.layout.scratch.glob(f"{run.id}-*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        _carry(ws, run, policy, fence, scratch)
    except LeaseLost:
        pass  # the worker that took over begins the run again
    except (AndonError, OSError) as error:
        log.error("run %s could not be ended: %s", run.id, error)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _carry(ws: OpenWorkspace, run: Run, policy: Policy, fence: Fence, scratch: Path) -> None:
    try:
        _LineRun(ws, run, policy, fence, scratch).go()
    except LeaseLost:
        raise
    except ContractBroken as error:
        end(ws, run, "blocked", fence, error=str(error))
    except AndonError as error:
        end(ws, run, "failed", fence, error=str(error))
    except Exception as error:  # noqa: BLE001  # a fault of ours must end the run, not the worker
        with (ws.layout.logs / f"run-{run.id}.log").open("a") as file:
            file.write(traceback.format_exc())
        end(ws, run, "failed", fence, error=f"{type(error).__name__}: {error}")


def end(ws: OpenWorkspace, run: Run, state: RunState, fence: Fence, *, error: str) -> None:
    """Write that a run ended without a model."""

    def work(tx: Transaction) -> None:
        fence(tx)
        current = tx.runs.get(run.id)
        if current.state == "running":
            seal_run(tx, current, state, at=ws.clock.now(), error=error)

    ws.store.write(work)


def seal_run(
    tx: Transaction,
    run: Run,
    state: RunState,
    *,
    at: datetime,
    error: str | None = None,
    outputs: tuple[Node, ...] = (),
) -> Run:
    """End a line's run: its params, metrics, inputs and outputs get a digest in the ledger.

    Raises:
        Invalid: no line made the run.
    """
    work = line_work(run)
    params = tx.params.of([run.number])[run.number]
    metrics = tx.metrics.latest([run])[run.number]
    inputs = [node("policy", work.policy), node("code", work.code)]
    inputs += [node("dataset_version", run.dataset_version)] if run.dataset_version else []
    inputs += [node("environment", run.environment)] if run.environment else []
    said = {
        "format": "andon.run/1", "run": run.id, "state": state, "params": params, "seed": run.seed,
        "metrics": {key: point.value.hex() for key, point in sorted(metrics.items())},
        "inputs": list(inputs), "outputs": list(outputs),
    }  # fmt: skip
    seal = digest_bytes(canonical(said))
    tx.ledger.append(
        EventDraft(
            kind="run.sealed", actor=run.actor, at=at, subject=node("run", run.id), inputs=tuple(inputs), data_at=run.data_at,
            outputs=outputs, facts={"state": state, "seal": seal}, note=error,
        )
    )  # fmt: skip
    advance("run", f"run {run.id}", run.state, state)
    return tx.runs.change(
        msgspec.structs.replace(run, state=state, finished_at=at, error=error, seal=seal, seals=run.seals + 1)
    )


class _LineRun:
    """One pass; the methods are in the order in which they are called."""

    def __init__(self, ws: OpenWorkspace, run: Run, policy: Policy, fence: Fence, scratch: Path) -> None:
        self.ws, self.run, self.policy, self.fence, self.scratch = ws, run, policy, fence, scratch
        self.log = ws.layout.logs / f"run-{run.id}.log"
        work = line_work(run)
        self.line = work.line
        self.code = str(materialise_code(ws.blobs, work.code, scratch / "code"))
        self.project = Path(ws.store.read(lambda reader: reader.lines.get(work.line)).folder)

    def go(self) -> None:
        frame = self.ingest()
        dataset = self.admit(frame)
        parts = split(
            frame, time=self.policy.source.time, label_time=self.policy.source.label_time,
            label=self.policy.source.label, holdout=self.policy.train.holdout, window=self.policy.train.window,
            until=self.run.data_at if self.policy.clock == "data" else None, key=self.policy.source.key,
            seed=self.policy.train.seed,
        )  # fmt: skip
        package = self.train(parts)
        live = self.live_version()
        judged = self.judge(parts, package, live)
        self.register(dataset, parts, package, judged, live)

    def ingest(self) -> pl.DataFrame:
        """Rows of the source up to the run's domain time, read in a step."""
        out = self.scratch / "ingest"
        spec = StepSpec(
            verb="ingest", code=self.code, project=str(self.project), out=str(out), source=self.policy.source,
            until=self.run.data_at,
        )  # fmt: skip
        run_step(spec, log=self.log)
        return pl.read_parquet(out / "frame.parquet")

    def admit(self, frame: pl.DataFrame) -> DatasetVersion:
        """Check rows against their contract and store them as a version; broken rows stop the run here."""
        source = self.policy.source
        contract, digest = self.contract(frame)
        report = check(frame, contract)
        version = commit_dataset(
            self.ws.store, self.ws.blobs, dataset=source.name, frame=frame, source_text=redact(source.source), key=source.key,
            contract=digest, report=self.ws.blobs.put(report.encode()),
            state="valid" if report.passed else "blocked", actor=self.run.actor, at=self.ws.clock.now(),
            data_until=self.run.data_at,
        )  # fmt: skip
        self.run = self.ws.store.write(lambda tx: self._note_dataset(tx, version))
        if not report.passed:
            self.ws.store.write(lambda tx: self._contract_alert(tx, version, report.summary()))
            raise ContractBroken(
                f"dataset {source.name!r} version {version.number} breaks its contract: {report.summary()}",
                hint="nothing was trained; fix the source, or review the contract",
            )
        return version

    def contract(self, frame: pl.DataFrame) -> tuple[Contract, Digest]:
        """The contract in force: the project's file, else the one inferred first, else one inferred now."""
        source = self.policy.source
        text = self._contract_text()
        if text is None:
            text = to_toml(infer(frame, source))
            if source.contract:
                target = self.project / source.contract
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(text)
        contract = from_toml(text, where=source.contract or "the inferred contract")
        digest = self.ws.blobs.put(contract.encode())
        self.ws.store.write(lambda tx: self._note_contract(tx, digest))
        return contract, digest

    def train(self, parts: Split) -> Package:
        """Call the entry in a step and package what it returned."""
        rows = parts.train
        if "shuffled-labels" in self.run.faults:
            rows = rehearsal.shuffle_labels(rows, self.policy.source.label, seed=self.run.seed)
        rows.write_parquet(self.scratch / "train.parquet", compression="lz4")
        out = self.scratch / "train"
        run_step(
            StepSpec(
                verb="train", code=self.code, out=str(out), entry=self.policy.entry, rows=str(self.scratch / "train.parquet"),
                seed=self.run.seed, params=self.policy.train.params,
            ),
            log=self.log,
        )  # fmt: skip
        trees = msgspec.json.decode((out / "expressions.json").read_bytes(), type=list[bytes])
        expressions = [decode_expression(tree) for tree in trees]
        rows = pl.concat([parts.train, parts.holdout])
        signature = infer_signature(rows, expressions)
        raw = [field.name for field in signature.inputs]
        time = self.policy.source.time
        profile = build_profile(parts.train, raw, time=time, window=self.policy.monitor.window)
        return build_package(
            self.ws.blobs, expressions=expressions, booster_text=(out / "model.txt").read_text(), raw_schema=signature,
            profile_bytes=profile.to_bytes(),
            golden_rows=parts.holdout.sample(min(512, parts.holdout.height), seed=self.run.seed),
        )  # fmt: skip

    def live_version(self) -> ModelVersion | None:
        """The version that the endpoint serves just now."""

        def work(reader: Reader) -> ModelVersion | None:
            live = live_release(reader, self.policy.release.endpoint)
            return reader.model_versions.get(live.model_version) if live else None

        return self.ws.store.read(work)

    def judge(self, parts: Split, package: Package, live: ModelVersion | None) -> Evaluation:
        """Score candidate and live on the newest labelled window that neither was trained on."""
        models = self.ws.layout.models
        window = parts.holdout
        if live is not None and live.data_until is not None and self.policy.source.time:
            window = window.filter(pl.col(self.policy.source.time) >= live.data_until)
        return evaluate(
            self.policy.gate,
            candidate=load(install(self.ws.blobs, package.digest, models)),
            live=load(install(self.ws.blobs, live.digest, models)) if live else None,
            frame=window, label=self.policy.source.label, unlabelled=parts.unlabelled, policy=self.policy.digest,
            data_from=parts.holdout_from, data_until=parts.holdout_until,
        )  # fmt: skip

    def register(
        self,
        dataset: DatasetVersion,
        parts: Split,
        package: Package,
        judged: Evaluation,
        live: ModelVersion | None,
    ) -> None:
        """One transaction: metrics, the version, its verdict, the run's seal and the release it asks for."""
        environment = capture_environment(self.ws.blobs)
        evidence = self.ws.blobs.put(judged.evidence)
        profile = package.files["profile.json"]
        at = self.ws.clock.now()

        def work(tx: Transaction) -> None:
            self.fence(tx)
            run = tx.runs.get(self.run.id)
            if run.state != "running":
                return
            self._log(tx, run, judged.metrics, at)
            run = msgspec.structs.replace(run, environment=environment)
            version = register_version(
                tx, model=self.policy.name, run=run.id, digest=package.digest, dataset_version=dataset.manifest,
                profile=profile, data_from=parts.train_from, data_until=parts.train_until, actor=run.actor, at=at,
            )  # fmt: skip
            verdict = give_verdict(
                tx, version, endpoint=self.policy.release.endpoint, policy=self.policy.digest, judgement=judged.judgement,
                evidence=evidence, against=live.id if live else None, actor=run.actor, at=at,
            )  # fmt: skip
            run = msgspec.structs.replace(run, model_version=version.id)
            seal_run(
                tx,
                run,
                "finished",
                at=at,
                outputs=(node("model_version", version.id), node("verdict", verdict.id)),
            )
            if in_progress(tx, self.policy.release.endpoint) is None:
                request_release(
                    tx, endpoint=self.policy.release.endpoint, line=self.line, version=tx.model_versions.get(version.id),
                    policy=self.policy.digest, run=run.id, strategy=self.policy.release.strategy,
                    approvals_needed=self.policy.release.approvals, cause=node("run", run.id), actor=run.actor, at=at,
                )  # fmt: skip

        self.ws.store.write(work)
        if "broken-feature" in self.run.faults:
            rehearsal.break_feature(self.ws, self.run.id)

    def _contract_text(self) -> str | None:
        source = self.policy.source
        if source.contract and (self.project / source.contract).is_file():
            return (self.project / source.contract).read_text()
        first = self.ws.store.read(
            lambda reader: reader.dataset_versions.select(
                {"dataset": source.name}, order=("number",), limit=1
            )
        )
        return self.ws.blobs.get(first[0].contract).decode() if first and first[0].contract else None

    def _note_contract(self, tx: Transaction, digest: Digest) -> None:
        subject = node("contract", digest)
        if not tx.ledger.latest(limit=1, subject=subject):
            tx.ledger.append(
                EventDraft(
                    kind="contract.inferred", actor=self.run.actor, at=self.ws.clock.now(), subject=subject,
                    facts={"dataset": self.policy.source.name},
                )
            )  # fmt: skip

    def _note_dataset(self, tx: Transaction, version: DatasetVersion) -> Run:
        self.fence(tx)
        return tx.runs.change(
            msgspec.structs.replace(tx.runs.get(self.run.id), dataset_version=version.manifest)
        )

    def _contract_alert(self, tx: Transaction, version: DatasetVersion, summary: str) -> None:
        self.fence(tx)
        subject = node("dataset_version", version.manifest)
        open_alert(
            tx, line=self.line, monitor="contract", subject=subject, summary=summary, evidence=version.report or Digest(""),
            actor=self.run.actor, at=self.ws.clock.now(), data_at=self.run.data_at,
        )  # fmt: skip

    def _log(self, tx: Transaction, run: Run, metrics: Mapping[str, float], at: datetime) -> None:
        params = {**self.policy.train.params, "seed": run.seed}
        tx.params.add(owner(run), {key: str(value) for key, value in params.items()})
        at_ms = to_us(at) // 1000
        tx.metrics.log(run, [Point(key, value, at_ms) for key, value in metrics.items()])
