"""The load: writers that log as trainings do, each to runs and a model of its own, and to one model that all share."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from tests.chaos.tracking_client import RawClient, Slow, Told, Toll, Unanswered
from tests.chaos.tracking_journal import Batch, Held, Journal, Place, RunJournal, VersionJournal

SHARED = "shared"
SEARCHED = "accuracy"
"""A metric whose values are finite and differ."""
KEYS = (SEARCHED, "loss", "system/cpu.share")
HELD_BYTES = 256 * 1024
"""An upload of at least this size says when it is half done."""
_SIZES = (
    (1, 4096, 0.7),
    (4096, 256 * 1024, 0.2),
    (256 * 1024, 2 * 2**20, 0.08),
    (2 * 2**20, 8 * 2**20, 0.02),
)
_ACTS: Mapping[str, int] = {
    "point": 30, "batch": 22, "param": 6, "tag": 8, "file": 7, "other_file": 4, "torn_file": 3, "delete_file": 2,
    "read_back": 5, "end": 3, "late": 2, "hide": 1, "show": 2, "version": 5, "alias": 5, "stage": 3,
}  # fmt: skip
_LONGEST_RUN = 60


class Moments:
    """How writers and the one who kills find the same moment."""

    def __init__(self) -> None:
        self._wanted = ""
        self._reached = threading.Event()
        self._killed = threading.Event()
        self._killed.set()

    def reached(self, kind: str) -> None:
        """A writer is there. Where the kill is to come first, it waits for it."""
        if kind != self._wanted:
            return
        killed = self._killed
        self._reached.set()
        if kind == "half a file":
            killed.wait(5)

    def wait(self, kind: str, within_s: float) -> bool:
        """Wait until somebody is there; whether somebody was."""
        self._reached.clear()
        self._killed.clear()
        self._wanted = kind
        return self._reached.wait(within_s)

    def passed(self) -> None:
        """It is done; go on."""
        self._wanted = ""
        self._killed.set()


class Writer(threading.Thread):
    """One training after another, from a seed. What is random is the same for the same seed; what is lost is not."""

    def __init__(
        self, number: int, seed: int, client: RawClient, moments: Moments, stop: threading.Event
    ) -> None:
        super().__init__(name=f"writer-{number}")
        self.number, self.client = number, client
        self.journal = Journal()
        self.failure: BaseException | None = None
        self._rng = Random(f"{seed}/writer/{number}")
        self._moments, self._stop_asked = moments, stop
        self._clock_ms = 1_700_000_000_000 + number
        self._count = 0
        self._experiment = ""
        self._run: RunJournal | None = None
        self._since = 0

    @property
    def toll(self) -> Toll:
        return self.client.toll

    def run(self) -> None:
        try:
            self._begin()
            while not self._stop_asked.is_set():
                try:
                    self._act()
                except Unanswered:
                    self._since += 1
        except Unanswered:
            pass  # nobody waits for this writer any more
        except BaseException as error:  # noqa: BLE001  # the battery raises it
            self.failure = error
        finally:
            self.client.close()

    # --- what happens ---

    def _begin(self) -> None:
        name = f"writer {self.number}"
        told = self._sure("experiments/create", {"name": name}, 400)
        if told.status == 400:  # the answer to the first request was lost
            told = self.client.get("experiments/get-by-name", experiment_name=name)
            self._experiment = told.json["experiment"]["experiment_id"]
        else:
            self._experiment = told.json["experiment_id"]
        for model in (f"model-{self.number}", SHARED):
            self._sure("registered-models/create", {"name": model}, 400)

    def _act(self) -> None:
        if self._run is None or self._run.ident is None:
            self._new_run()
            return
        self._since += 1
        if self._since > _LONGEST_RUN:
            self._end(self._run)
            return
        (act,) = self._rng.choices(list(_ACTS), list(_ACTS.values()))
        {"end": self._end, "late": self._late, "point": self._point, "batch": self._batch, "param": self._param,
         "tag": self._tag, "file": self._file, "other_file": self._other_file, "torn_file": self._torn_file,
         "delete_file": self._delete_file, "read_back": self._read_back, "hide": self._hide, "show": self._show,
         "version": self._version, "alias": self._alias, "stage": self._stage}[act](self._run)  # fmt: skip

    def _new_run(self) -> None:
        self._since = 0
        run = RunJournal(self._fresh("run"), self._experiment, self._fresh("training"), self._now())
        self.journal.runs.append(run)
        self._run = run
        form = {
            "experiment_id": run.experiment, "run_name": run.name, "start_time": run.start_ms,
            "tags": [{"key": "nonce", "value": run.nonce}],
        }  # fmt: skip
        told = self._ask("runs/create", form, "a run begins", counts=lambda: _more(run))
        run.ident = told.json["run"]["info"]["run_id"]

    def _end(self, run: RunJournal) -> None:
        status = self._rng.choice(("FINISHED", "FINISHED", "FINISHED", "FAILED", "KILLED"))
        self._state(run, status, self._now())
        self._run = None

    def _late(self, _: RunJournal) -> None:
        """Something comes for a run that has ended."""
        ended = [run for run in self.journal.runs[-20:] if self._takes_writes(run)]
        if ended:
            self._point(self._rng.choice(ended))

    def _state(self, run: RunJournal, status: str, end_ms: int) -> None:
        run.status.sent((status, end_ms))
        self._ask("runs/update", {"run_id": run.ident, "status": status, "end_time": end_ms}, "a run ends")
        run.status.acknowledged((status, end_ms))

    def _hide(self, current: RunJournal) -> None:
        ended = [run for run in self.journal.runs if run is not current and self._takes_writes(run)]
        if ended:
            self._set_deleted(self._rng.choice(ended[-20:]), deleted=True)

    def _show(self, _: RunJournal) -> None:
        hidden = [run for run in self.journal.runs if run.ident and run.deleted.known]
        if hidden:
            self._set_deleted(self._rng.choice(hidden), deleted=False)

    def _set_deleted(self, run: RunJournal, *, deleted: bool) -> None:
        run.deleted.sent(deleted)
        self._ask(f"runs/{'delete' if deleted else 'restore'}", {"run_id": run.ident}, "a run is hidden")
        run.deleted.acknowledged(deleted)

    # --- metrics, params, tags ---

    def _point(self, run: RunJournal) -> None:
        key, place = self._rng.choice(KEYS), self._place()
        batch = Batch({key: (place,)})
        run.batches.append(batch)
        self._ask("runs/log-metric", {"run_id": run.ident, **_spelled(key, place)}, "a point")
        batch.acknowledged = True

    def _batch(self, run: RunJournal) -> None:
        rng, few = self._rng, self._rng.randrange(3)
        points = {key: tuple(self._place() for _ in range(rng.choice((0, 1, 20, 300)))) for key in KEYS}
        batch = Batch(
            {key: places for key, places in points.items() if places},
            {self._fresh("param"): self._fresh("value") for _ in range(few)},
            {self._fresh("tag"): self._fresh("value") for _ in range(few)},
        )
        run.batches.append(batch)
        form = {
            "run_id": run.ident,
            "metrics": [_spelled(key, place) for key, places in batch.points.items() for place in places],
            "params": [{"key": key, "value": value} for key, value in batch.params.items()],
            "tags": [{"key": key, "value": value} for key, value in batch.tags.items()],
        }
        self._ask("runs/log-batch", form, "a batch")
        batch.acknowledged = True

    def _param(self, run: RunJournal) -> None:
        key, value = self._fresh("param"), self._fresh("value")
        batch = Batch({}, {key: value})
        run.batches.append(batch)
        self._ask("runs/log-parameter", {"run_id": run.ident, "key": key, "value": value}, "a param")
        batch.acknowledged = True

    def _tag(self, run: RunJournal) -> None:
        key = self._rng.choice(("phase", "note", "host"))
        held = run.tags.setdefault(key, Held(None))
        if held.known is not None and not held.maybe and self._rng.random() < 0.2:
            held.sent(None)
            told = self._ask("runs/delete-tag", {"run_id": run.ident, "key": key}, "a tag", 404)
            if told.status == 404 and told.sent == 1:
                self.toll.offences.append(f"the tag {key} of {run.ident} was lost")
            held.acknowledged(None)
            return
        value = self._fresh("value")
        held.sent(value)
        self._ask("runs/set-tag", {"run_id": run.ident, "key": key, "value": value}, "a tag")
        held.acknowledged(value)

    def _place(self) -> Place:
        value = self._rng.uniform(0, 1)
        if self._rng.random() < 0.02:
            value = math.nan
        return (self._rng.randrange(1000), self._now(), repr(value))

    # --- files ---

    def _file(self, run: RunJournal) -> None:
        self._put(run, f"{self._rng.choice(('plots', 'data', 'a/b'))}/{self._fresh('file')}", self._bytes())

    def _other_file(self, run: RunJournal) -> None:
        """A name that has, or had, other bytes."""
        self._put(run, f"again/{self._rng.randrange(4)}", self._bytes())

    def _put(self, run: RunJournal, path: str, data: bytes) -> None:
        held, digest = run.files.setdefault(path, Held(None)), _digest(data)
        held.sent(digest)
        body: bytes | Slow = data
        if len(data) >= HELD_BYTES:
            body = Slow(data, lambda: self._moments.reached("half a file"))
        told = self.client.upload(
            f"{run.root}/{path}", body, sent=lambda: self._moments.reached("a file"), patience=self._patience
        )
        self._check(told, f"PUT {path}")
        held.acknowledged(digest)

    def _torn_file(self, run: RunJournal) -> None:
        """The client dies in the middle of an upload, of a new name or of one that has bytes."""
        path = (
            f"again/{self._rng.randrange(4)}" if self._rng.random() < 0.5 else f"torn/{self._fresh('file')}"
        )
        run.files.setdefault(path, Held(None))
        size = self._rng.choice((1000, 300_000, 3_000_000))

        def die() -> None:
            self._moments.reached("half a file")
            raise Unanswered

        self.journal.torn += 1
        self.client.upload(f"{run.root}/{path}", Slow(self._rng.randbytes(size), die))

    def _delete_file(self, run: RunJournal) -> None:
        there = [path for path, held in run.files.items() if held.known]
        if there:
            path = self._rng.choice(there)
            run.files[path].sent(None)
            self._check(self.client.remove(f"{run.root}/{path}", patience=self._patience), f"DELETE {path}")
            run.files[path].acknowledged(None)

    def _bytes(self) -> bytes:
        ((low, high, _),) = self._rng.choices(_SIZES, [weight for *_, weight in _SIZES])
        return self._rng.randbytes(self._rng.randint(low, high))

    # --- models ---

    def _version(self, run: RunJournal) -> None:
        folder, nonce = self._fresh("model"), self._fresh("version")
        files = {
            name: self._rng.randbytes(self._rng.randint(1, 2000)) for name in ("MLmodel", "data/model.txt")
        }
        for name, data in files.items():
            self._put(run, f"{folder}/{name}", data)
        version = VersionJournal(
            self._rng.choice((f"model-{self.number}", SHARED)), nonce, f"runs:/{run.ident}/{folder}", run.ident or "",
            {name: _digest(data) for name, data in files.items()},
        )  # fmt: skip
        self.journal.versions.append(version)
        form = {
            "name": version.model, "source": version.source, "run_id": version.run,
            "tags": [{"key": "nonce", "value": nonce}],
        }  # fmt: skip
        told = self._ask("model-versions/create", form, "a version", counts=lambda: _more(version))
        version.number = int(told.json["model_version"]["version"])

    def _alias(self, _: RunJournal) -> None:
        own = f"model-{self.number}"
        numbers = [each.number for each in self.journal.versions if each.model == own and each.number]
        if not numbers:
            return
        alias, number = self._rng.choice(("champion", "challenger")), self._rng.choice(numbers)
        held = self.journal.aliases.setdefault((own, alias), Held(None))
        if held.known and self._rng.random() < 0.2:
            held.sent(None)
            self._check(
                self.client.delete("registered-models/alias", {"name": own, "alias": alias}, patience=self._patience),
                "DELETE alias",
            )  # fmt: skip
            held.acknowledged(None)
            return
        held.sent(number)
        self._ask(
            "registered-models/alias", {"name": own, "alias": alias, "version": str(number)}, "an alias"
        )
        held.acknowledged(number)

    def _stage(self, _: RunJournal) -> None:
        own = [each for each in self.journal.versions if each.number]
        if own:
            version, stage = self._rng.choice(own), self._rng.choice(("Staging", "Production", "Archived"))
            version.stage.sent(stage)
            form = {"name": version.model, "version": str(version.number), "stage": stage}
            self._ask("model-versions/transition-stage", form, "a stage")
            version.stage.acknowledged(stage)

    # --- what can be read already ---

    def _read_back(self, run: RunJournal) -> None:
        """What was acknowledged is seen at once, whoever was killed in between."""
        told = self.client.get("runs/get", run_id=run.ident)
        self._check(told, "runs/get")
        data = told.json["run"]["data"]
        params = {each["key"]: each["value"] for each in data.get("params", ())}
        latest = {each["key"]: (each["step"], each["timestamp"]) for each in data.get("metrics", ())}
        for batch in run.batches:
            if batch.acknowledged and any(params.get(key) != value for key, value in batch.params.items()):
                self.toll.offences.append(f"run {run.ident} was read without params of {batch.params}")
            for key, places in batch.points.items():
                if batch.acknowledged and latest.get(key, (-1, 0)) < max(places)[:2]:
                    self.toll.offences.append(f"run {run.ident} was read with {key} at {latest.get(key)}")
        there = [path for path, held in run.files.items() if held.known and not held.maybe]
        if there:
            path = self._rng.choice(there)
            found = self.client.download(f"{run.root}/{path}")
            if found.status != 200 or _digest(found.body) != run.files[path].known:
                self.toll.offences.append(
                    f"{run.root}/{path} was read as {found.status}, {len(found.body)} bytes"
                )

    # --- how it asks ---

    def _ask(
        self, path: str, form: object, moment: str, *fine: int, counts: Callable[[], None] = lambda: None
    ) -> Told:
        def sent() -> None:
            counts()
            self._moments.reached(moment)

        told = self.client.post(path, form, sent=sent, patience=self._patience)
        self._check(told, path, *fine)
        return told

    def _sure(self, path: str, form: object, *fine: int) -> Told:
        told = self.client.post(path, form)
        self._check(told, path, *fine)
        return told

    def _check(self, told: Told, what: str, *fine: int) -> None:
        if told.status == 200 or told.status in fine:
            self.journal.acknowledged += 1
            return
        self.toll.offences.append(f"{what} was answered with {told.status}: {told.body[:300]!r}")
        raise Unanswered

    def _takes_writes(self, run: RunJournal) -> bool:
        """Whether it has ended and is not hidden, as far as anybody knows."""
        sure = not run.status.maybe and not run.deleted.maybe and not run.deleted.known
        return bool(run.ident) and sure and run.status.known[0] != "RUNNING"

    def _patience(self) -> bool:
        """Most clients send it again; some are gone by then."""
        return self._rng.random() < 0.8

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self.number}-{self._count}"

    def _now(self) -> int:
        self._clock_ms += 100
        return self._clock_ms


def _more(journal: Any) -> None:
    journal.sent += 1


def _spelled(key: str, place: Place) -> dict[str, object]:
    value: float | str = float(place[2])
    if value != value:  # noqa: PLR0124
        value = "NaN"
    return {"key": key, "value": value, "timestamp": place[1], "step": place[0]}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
