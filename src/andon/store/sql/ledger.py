"""The ledger in SQL: events in one chain without gaps, and the edges that follow from them.

A transaction's events are only collected; `seal` gives them their places in one go, as the last thing before commit,
while it holds the head. So numbers follow the order of commits, and who reads up to the head misses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import Table, bindparam, literal, select, tuple_, update

from andon.core.canonical import Digest
from andon.core.entities import Personal
from andon.core.errors import Corrupt, Invalid
from andon.core.events import Edge, Event, EventDraft, check_draft, note_hash, seal_event
from andon.core.events import edges as edges_of
from andon.core.ids import Node
from andon.store.sql.collection import Session, SqlCollection
from andon.store.sql.ready import ready
from andon.store.sql.schema import edges, events, ledger_head, workspaces
from andon.store.sql.types import TEXT, WHOLE, unstorable

WORKSPACE_ID: Final = "workspace"
_MANY: Final = 500
_HEAD: Final = select(ledger_head.c.seq, ledger_head.c.hash).where(ledger_head.c.id == 1).with_for_update()
_EPOCH: Final = select(workspaces.c.epoch).where(workspaces.c.id == WORKSPACE_ID)
_MOVE: Final = (
    update(ledger_head)
    .where(ledger_head.c.id == 1)
    .values(seq=bindparam("new_seq", type_=WHOLE), hash=bindparam("new_hash", type_=TEXT))
)
_EVENT: Final = Event.__struct_fields__


class SqlLedger:
    """`ports.Ledger`. Drafts go to the list that the transaction's owner gave, and are sealed at commit."""

    def __init__(self, session: Session, drafts: list[EventDraft]) -> None:
        self._session = session
        self._drafts = drafts

    def append(self, draft: EventDraft) -> None:
        self._session.check_writable()
        check_draft(draft)
        texts = (draft.actor, draft.subject, *draft.inputs, *draft.outputs, draft.note)
        for value in (draft.at, draft.data_at, *texts, *draft.facts.values()):
            if fault := unstorable(value):
                raise Invalid(f"event {draft.kind} of {draft.subject} cannot be stored: {value!r} {fault}")
        self._drafts.append(draft)

    def after(self, seq: int, *, limit: int = 1000, kinds: Sequence[str] = ()) -> list[Event]:
        statement = select(events).where(events.c.seq > seq)
        if kinds:
            statement = statement.where(events.c.kind.in_(list(kinds)))
        return self._events(statement.order_by(events.c.seq).limit(limit))

    def latest(self, *, limit: int = 50, subject: Node | None = None) -> list[Event]:
        statement = select(events)
        if subject is not None:
            statement = statement.where(events.c.subject == subject)
        return self._events(statement.order_by(events.c.seq.desc()).limit(limit))

    def head(self) -> tuple[int, Digest]:
        row = self._session.connection.execute(select(ledger_head.c.seq, ledger_head.c.hash)).one()
        return row.seq, Digest(row.hash)

    def up(self, start: Node, *, depth: int | None = 12, limit: int = 10_000) -> list[Edge]:
        return self._walk(start, depth, limit, here=edges.c.dst, there=edges.c.src)

    def down(self, start: Node, *, depth: int | None = 12, limit: int = 100_000) -> list[Edge]:
        return self._walk(start, depth, limit, here=edges.c.src, there=edges.c.dst)

    def edges(self, *, after: Edge | None = None, limit: int = 1000) -> list[Edge]:
        statement = (
            select(edges.c.src, edges.c.dst, edges.c.seq).order_by(edges.c.src, edges.c.dst).limit(limit)
        )
        if after is not None:
            statement = statement.where(tuple_(edges.c.src, edges.c.dst) > (after.src, after.dst))
        rows = self._session.connection.execute(statement)
        return [Edge(Node(src), Node(dst), seq) for src, dst, seq in rows]

    def _events(self, statement: Any) -> list[Event]:
        return [Event(**row._mapping) for row in self._session.connection.execute(statement)]

    def _walk(self, start: Node, depth: int | None, limit: int, *, here: Any, there: Any) -> list[Edge]:
        if depth is None:
            return self._walk_all(start, limit, here=here, there=there)
        return self._walk_near(start, depth, limit, here=here, there=there)

    def _walk_all(self, start: Node, limit: int, *, here: Any, there: Any) -> list[Edge]:
        """Edges met however far away, oldest first; each node is visited once."""
        walk = select(literal(start, edges.c.src.type).label("node")).cte("walk", recursive=True)
        walk = walk.union(select(there).join(walk, here == walk.c.node))
        met = select(edges.c.src, edges.c.dst, edges.c.seq).join(walk, here == walk.c.node)
        statement = met.order_by(edges.c.seq, edges.c.src, edges.c.dst).limit(limit)
        rows = self._session.connection.execute(statement)
        return [Edge(Node(src), Node(dst), seq) for src, dst, seq in rows]

    def _walk_near(self, start: Node, depth: int, limit: int, *, here: Any, there: Any) -> list[Edge]:
        """Edges met within `depth` steps, nearest first, by one query a step; each node is left once, so circles end.

        A recursive query would carry the depth with each node and so visit nodes again at every depth at which they are
        reached: measured on 1,000,000 edges, that is 18 s instead of 0.2 s for what everything hangs on.
        """
        found: list[Edge] = []
        seen = {str(start)}
        level = [str(start)]
        while level and depth > 0 and len(found) < limit:
            met = self._edges_at(level, limit - len(found), here, there)
            found += met
            level = sorted({edge.dst if here is edges.c.src else edge.src for edge in met} - seen)
            seen.update(level)
            depth -= 1
        return found

    def _edges_at(self, nodes: list[str], limit: int, here: Any, there: Any) -> list[Edge]:
        """The edges of some nodes, in the order in which they were said."""
        met: list[Edge] = []
        for start in range(0, len(nodes), _MANY):
            some = select(edges.c.src, edges.c.dst, edges.c.seq).where(here.in_(nodes[start : start + _MANY]))
            statement = some.order_by(here, there).limit(limit - len(met))
            met += [
                Edge(Node(src), Node(dst), seq)
                for src, dst, seq in self._session.connection.execute(statement)
            ]
            if len(met) == limit:
                break
        return sorted(met, key=lambda edge: (edge.seq, edge.src, edge.dst))


def seal(session: Session, drafts: Sequence[EventDraft], salt: Callable[[], str]) -> Digest | None:
    """Give drafts their places at the end of the chain; the last one's hash, None when there are no drafts.

    The head stays locked until the transaction ends.

    Args:
        salt: makes a fresh salt for each note.

    Raises:
        Corrupt: the workspace's own row or the head is missing.
    """
    if not drafts:
        return None
    seq, prev, epoch = locked_head(session)
    sealed: list[Event] = []
    notes: list[Personal] = []
    for draft in drafts:
        seq += 1
        note = None
        if draft.note is not None:
            grain = salt()
            note = note_hash(grain, draft.note)
            notes.append(
                Personal(id=note_id(seq), subject=f"actor:{draft.actor}", salt=grain, text=draft.note)
            )
        sealed.append(seal_event(draft, seq=seq, epoch=epoch, prev=prev, note=note))
        prev = sealed[-1].hash
    _insert(session, events, [{name: getattr(event, name) for name in _EVENT} for event in sealed])
    pairs = {(edge.dst, edge.src): edge for event in reversed(sealed) for edge in edges_of(event)}
    _insert(session, edges, [{"src": edge.src, "dst": edge.dst, "seq": edge.seq} for edge in pairs.values()])
    personal = SqlCollection(session, Personal)
    for row in notes:
        personal.add(row)
    ready(_MOVE, session.connection, ("new_seq", "new_hash")).run(
        session.connection, {"new_seq": seq, "new_hash": prev}
    )
    return prev


def note_id(seq: int) -> str:
    """The id of the `Personal` row that holds the text of an event's note.

    >>> note_id(7)
    'event:7'
    """
    return f"event:{seq}"


def locked_head(session: Session) -> tuple[int, Digest, int]:
    """Sequence number and hash of the head, and the epoch; SQLite has the whole database locked by now."""
    connection = session.connection
    head: Any = ready(_HEAD, connection).run(connection, {}).one_or_none()
    epoch: Any = ready(_EPOCH, connection).run(connection, {}).scalar()
    if head is None or epoch is None:
        raise Corrupt("the workspace has no head of its ledger or no epoch", hint="restore it from a backup")
    seq, digest = head
    return int(seq), Digest(digest), int(epoch)


def _insert(session: Session, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:  # an actor's own first event says no edge
        statement = ready(_insertion(session.insert, table), session.connection, tuple(rows[0]))
        statement.run_many(session.connection, rows)


@cache
def _insertion(insert: Callable[[Table], Any], table: Table) -> Any:
    return insert(table).on_conflict_do_nothing() if table is edges else insert(table)
