"""The store: many threads hand in work, one thread commits it in groups.

A durable commit costs an fsync, whatever is in it. So everything that has been handed in by the time the fsync begins goes
with it: each piece of work runs in a savepoint of its own, the ledger is sealed once for all, and only after the commit are
the waiting threads answered. A piece that raises is taken back alone.
"""

from __future__ import annotations

import copy
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from andon.core.canonical import Digest
from andon.core.clock import Clock
from andon.core.errors import AndonError, Invalid, Unavailable
from andon.core.events import EventDraft
from andon.store.ports import Reader, Transaction, Value
from andon.store.sql import dump
from andon.store.sql.backend import Backend, Fault
from andon.store.sql.collection import Session
from andon.store.sql.ledger import locked_head, seal
from andon.store.sql.migrations import MIGRATIONS, Migration
from andon.store.sql.schema import events
from andon.store.sql.view import SqlView

T = TypeVar("T")

LARGEST_GROUP: Final = 256
_PAUSES_S: Final = tuple(min(0.001 * 2**attempt, 0.5) for attempt in range(16))
_GIVE_UP_S: Final = 60.0
_PASSING: Final = (Fault.AGAIN, Fault.LOST)
_NOTHING_HAPPENED: Final = (Fault.FULL, Fault.REFUSED)
_Work = Callable[[Transaction], Any]


class SqlStore:
    """`ports.Store` over a database whose schema is up to date.

    Open one in each process, after a fork: its thread and connections do not survive one, and it refuses to be used there.

    Args:
        backend: the database.
        clock: for the time of what the store does by itself.
        migrations: the schema's history, whose last step the database is at.
        salt: makes a fresh salt for each note.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        *,
        migrations: Sequence[Migration] = MIGRATIONS,
        salt: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._migrations = migrations
        self._salt = salt
        self._pid = os.getpid()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._door = threading.Lock()
        self._closed = False
        self._damage: AndonError | None = None
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._serve, name="andon-store", daemon=True)
        self._thread.start()

    def write(self, work: Callable[[Transaction], T]) -> T:
        job = _Job(work)
        self._hand_in(job)
        return cast("T", job.wait())

    def submit(self, work: Callable[[Transaction], T]) -> Future[T]:
        job = _Promised(work)
        self._hand_in(job)
        return job.future

    def _hand_in(self, job: _Job) -> None:
        self._check()
        with self._door:
            if self._closed:
                raise Unavailable("the store is closed", hint="open it again")
            self._jobs.put(job)

    def read(self, work: Callable[[Reader], T]) -> T:
        self._check()
        if self._closed:
            raise Unavailable("the store is closed", hint="open it again")
        try:
            with self._backend.reader.connect() as connection, connection.begin():
                return work(SqlView(self._backend.session(connection, writable=False), []))
        except DBAPIError as error:
            raise self._backend.explain(error) from error

    def tables(self) -> Iterator[tuple[str, list[dict[str, Value]]]]:
        self._check()
        with self._backend.reader.connect() as connection, connection.begin():
            yield from dump.tables(connection)

    def load(self, tables: Iterable[tuple[str, list[dict[str, Value]]]]) -> None:
        self._check()
        try:
            dump.load(self._backend, tables, self._clock.now(), self._migrations)
        except DBAPIError as error:
            raise self._backend.explain(error) from error

    def close(self) -> None:
        with self._door:
            first, self._closed = not self._closed, True
            if first:
                self._jobs.put(None)
        if first and self._pid == os.getpid():
            self._thread.join()
            self._backend.close()

    def _check(self) -> None:
        """Refuse uses that would hang or lie.

        Raises:
            Invalid: inside a piece of work of this store, or in a process that was forked off.
        """
        if threading.get_ident() == self._thread.ident:
            raise Invalid(
                "the store was called inside a transaction of its own",
                hint="use the transaction that was given",
            )
        if self._pid != os.getpid():
            raise Invalid(
                "the store was opened before this process was forked off", hint="open one in each process"
            )

    # --- what follows runs in the store's own thread ---

    def _serve(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                group = _Group([job], self._jobs)
                self._commit(group)
                if group.last_one:
                    return
                self._backend.tidy()
        finally:
            self._disconnect()
            self._backend.writer.dispose()

    def _commit(self, group: _Group) -> None:
        """Bring a group to its answers: committed, or each with its error."""
        until_s = time.monotonic() + _GIVE_UP_S
        for pause_s in _PAUSES_S:
            try:
                if self._damage is not None:
                    return group.fail(self._damage)
                if not (group.in_doubt and self._arrived(group)):
                    self._attempt(group)
                return group.answer()
            except DBAPIError as error:
                self._disconnect()
                failed = self._backend.explain(error)
                fault = self._backend.judge(error)
                if fault is Fault.DAMAGED:
                    self._damage = failed
                unknown = fault is Fault.LOST and group.committing and group.seal is None
                if fault not in _PASSING or unknown:
                    return (
                        self._each_alone(group, failed) if fault in _NOTHING_HAPPENED else group.fail(failed)
                    )
                group.in_doubt = group.in_doubt or (fault is Fault.LOST and group.committing)
            except BaseException as error:  # noqa: BLE001  # this thread must live on, and the waiters must hear of it
                self._disconnect()
                return group.fail(error)
            if time.monotonic() > until_s:
                break
            time.sleep(pause_s)
        return group.fail(failed)

    def _attempt(self, group: _Group) -> None:
        """One transaction over all work of a group, up to its commit."""
        group.restart()
        with self._backend.turn():
            connection = self._connect()
            with connection.begin() as transaction:
                session = self._backend.session(connection, writable=True)
                drafts = [draft for job in group for draft in self._run(job, session)]
                group.seal = seal(session, drafts, self._salt)
                group.committing = True
                transaction.commit()

    def _run(self, job: _Job, session: Session) -> list[EventDraft]:
        """Do one piece of work in a savepoint; its drafts. An error that is its own takes back only itself."""
        drafts: list[EventDraft] = []
        # Said in plain words: SQLAlchemy compiles a savepoint anew each time, which costs more than a small piece of work.
        session.connection.exec_driver_sql("SAVEPOINT job")
        try:
            job.value = job.work(SqlView(session, drafts))
        except DBAPIError:
            raise
        except BaseException as error:  # noqa: BLE001  # it belongs to the caller, where it is raised again
            session.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT job")
            session.connection.exec_driver_sql("RELEASE SAVEPOINT job")
            job.error = error
            return []
        session.connection.exec_driver_sql("RELEASE SAVEPOINT job")
        return drafts

    def _each_alone(self, group: _Group, error: AndonError) -> None:
        """What one piece of work brought about must not fail the others."""
        if len(group.jobs) == 1:
            return group.fail(error)
        for job in group.jobs:
            self._commit(_Group([job]))
        return None

    def _arrived(self, group: _Group) -> bool:
        """Whether a commit whose answer was lost is there; the lock on the head waits for its end, either way."""
        with self._connect().begin():
            session = self._backend.session(self._connect(), writable=True)
            locked_head(session)
            found = session.connection.execute(select(events.c.seq).where(events.c.hash == group.seal))
            return found.one_or_none() is not None

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._backend.writer.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


class _Job:
    """A piece of work and the thread that waits for its answer."""

    __slots__ = ("_done", "error", "value", "work")

    def __init__(self, work: _Work) -> None:
        self.work = work
        self.value: Any = None
        self.error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def answer(self) -> None:
        self._done.release()

    def wait(self) -> Any:
        self._done.acquire()
        if self.error is not None:
            raise self.error
        return self.value


class _Promised(_Job):
    """A piece of work that nobody waits for in a thread of its own."""

    __slots__ = ("future",)

    def __init__(self, work: _Work) -> None:
        super().__init__(work)
        self.future: Future[Any] = Future()

    def answer(self) -> None:
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)


class _Group:
    """Work that is committed together. Iterating takes in what has been handed in meanwhile, up to a limit.

    Attributes:
        jobs: the work so far.
        seal: hash of the last event of the attempt, None when it has none.
        committing: whether the attempt came to its commit.
        in_doubt: whether the connection broke during the commit.
        last_one: whether the end of the queue was met: the store is closing.
    """

    def __init__(self, jobs: list[_Job], queue: SimpleQueue[_Job | None] | None = None) -> None:
        self.jobs = jobs
        self.seal: Digest | None = None
        self.committing = False
        self.in_doubt = False
        self.last_one = False
        self._queue = queue

    def restart(self) -> None:
        """Forget the attempt before."""
        self.seal, self.committing, self.in_doubt = None, False, False
        for job in self.jobs:
            job.value = job.error = None

    def __iter__(self) -> Iterator[_Job]:
        done = 0
        while done < len(self.jobs) or self._more():
            yield self.jobs[done]
            done += 1

    def answer(self) -> None:
        """Wake all waiters with what their work gave or raised."""
        for job in self.jobs:
            job.answer()

    def fail(self, error: BaseException) -> None:
        """Wake all waiters with an error."""
        for job in self.jobs:
            job.error = copy.copy(error)  # each thread adds its own traceback to what it raises
        self.answer()

    def _more(self) -> bool:
        if self._queue is None or self.last_one or len(self.jobs) >= LARGEST_GROUP:
            return False
        try:
            job = self._queue.get_nowait()
        except Empty:
            return False
        if job is None:
            self.last_one = True
            return False
        self.jobs.append(job)
        return True
