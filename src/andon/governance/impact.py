"""From anything forward to all that it touched: which models, releases and predictions, and how many.

The ledger's graph says what was needed for what. Two kinds of need are kept apart: what was *made of* a thing (a model
trained on data, a release of the model) and what the thing only *led to* (an alert about a model starts a run of another
one; one version of a dataset comes after another). Bad data spoils the first, not the second.

Predictions are no nodes of the graph: they are counted from the segments of the prediction log.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from andon.core.canonical import Digest
from andon.core.entities import Segment
from andon.core.errors import NotFound
from andon.core.events import Edge
from andon.core.ids import Node, ReleaseId, node, split_node
from andon.store.ports import PredictionLog, Reader, Store

NODE_KINDS = (
    "actor", "alert", "approval", "code", "contract", "dataset_version", "endpoint", "environment", "line", "model_version",
    "policy", "release", "rollout", "run", "segment", "trigger", "verdict", "workspace",
)  # fmt: skip
_PREFIXES = {
    "act_": "actor", "al_": "alert", "ap_": "approval", "mv_": "model_version", "rel_": "release", "ro_": "rollout",
    "tr_": "trigger", "vd_": "verdict",
}  # fmt: skip
_OF_CONTENT = ("dataset_version", "code", "environment", "policy", "contract")
_RUN = re.compile(r"[0-9a-f]{32}\Z")
_SEGMENT = re.compile(r"[0-9a-f]{10}-[0-9]{6,}\Z")
_NUMBERED = re.compile(r"([^@/]+)([@/])([0-9]{1,9})\Z")
_LIMIT = 1_000_000
_NAMED = 50
_CHUNK = 500


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of one kind; `names` has what people call the first fifty of them."""

    kind: str
    count: int
    names: tuple[str, ...]


class Impact(msgspec.Struct, frozen=True, kw_only=True):
    """What a thing was needed for.

    Attributes:
        node: the thing, as a node of the lineage graph; `name` is what people call it.
        made: what was made of it, by kind: models trained on it, releases of those, and so on.
        led_to: what it only led to: runs that an alert about it started, the next version of its dataset, what those made.
        predictions: how many predictions were made of it; `by_release` has the share of each release.
        led_to_predictions: how many it only led to.
        truncated: there was more than could be followed, and every count is a lower bound.
    """

    node: Node
    name: str
    made: tuple[Group, ...]
    led_to: tuple[Group, ...]
    predictions: int
    by_release: dict[ReleaseId, int]
    led_to_predictions: int
    truncated: bool = False

    def text(self) -> str:
        """The same for people."""
        return "\n".join(_lines(self))


def impact(store: Store, log: PredictionLog, what: str) -> Impact:
    """Everything that a thing was needed for.

    Args:
        what: `dataset@3`, `model/2`, an id, a digest, the name of a line, or `kind:id`.

    Raises:
        NotFound: no such thing.
    """
    unsealed = log.unsealed()
    return store.read(lambda reader: _impact(reader, unsealed, what))


def _impact(reader: Reader, unsealed: Mapping[str, Mapping[ReleaseId, int]], what: str) -> Impact:
    start = _resolve(reader, what)
    edges = reader.ledger.down(start, depth=None, limit=_LIMIT)
    made, led = _reached(start, edges)
    counts = _predictions(reader, unsealed, made | led)
    mine = {release: count for release, count in counts.items() if node("release", release) in made}
    return Impact(
        node=start, name=_names(reader, split_node(start)[0], [start])[0], made=_groups(reader, made - {start}),
        led_to=_groups(reader, led), predictions=sum(mine.values()), by_release=mine,
        led_to_predictions=sum(counts.values()) - sum(mine.values()), truncated=len(edges) >= _LIMIT,
    )  # fmt: skip


def _reached(start: Node, edges: Iterable[Edge]) -> tuple[set[Node], set[Node]]:
    """What was made of a start, itself among it; and what it only led to."""
    onward: defaultdict[Node, list[Node]] = defaultdict(list)
    for edge in edges:
        onward[edge.src].append(edge.dst)
    made, led = {start}, set[Node]()
    fresh, leads = [start], list[Node]()
    while fresh:
        source = fresh.pop()
        for target in onward[source]:
            if target in made:
                continue
            if _only_leads(source, target):
                leads.append(target)
            else:
                made.add(target)
                fresh.append(target)
    while leads:
        source = leads.pop()
        if source not in made and source not in led:
            led.add(source)
            leads += onward[source]
    return made, led


def _only_leads(source: Node, target: Node) -> bool:
    """Whether an edge says what came after, not what was made of what."""
    if source.startswith("dataset_version:"):
        return target.startswith(("dataset_version:", "alert:", "trigger:"))
    return target.startswith(("alert:", "trigger:"))


def _predictions(
    reader: Reader, unsealed: Mapping[str, Mapping[ReleaseId, int]], nodes: set[Node]
) -> Counter[ReleaseId]:
    """How many predictions each release among the nodes made, in sealed segments and in files."""
    releases = {ReleaseId(split_node(one)[1]) for one in nodes if one.startswith("release:")}
    segments = [split_node(one)[1] for one in nodes if one.startswith("segment:")]
    counts: Counter[ReleaseId] = Counter()
    sealed = {row.id: row for row in _segments(reader, segments)}
    late = {row.id for row in _segments(reader, list(unsealed))}
    said: list[Mapping[ReleaseId, int]] = [part for ident, part in unsealed.items() if ident not in late]
    said += [
        {ReleaseId(release): count for release, count in row.releases.items()} for row in sealed.values()
    ]
    for part in said:
        counts.update({release: count for release, count in part.items() if release in releases})
    return counts


def _segments(reader: Reader, idents: Sequence[str]) -> Iterator[Segment]:
    for start in range(0, len(idents), _CHUNK):
        yield from reader.segments.select({"id": idents[start : start + _CHUNK]}, limit=_CHUNK)


def _groups(reader: Reader, nodes: Iterable[Node]) -> tuple[Group, ...]:
    kinds: defaultdict[str, list[Node]] = defaultdict(list)
    for one in sorted(nodes):
        kinds[split_node(one)[0]].append(one)
    return tuple(
        Group(kind=kind, count=len(found), names=tuple(_names(reader, kind, found[:_NAMED])))
        for kind, found in sorted(kinds.items())
    )


def _names(reader: Reader, kind: str, nodes: Sequence[Node]) -> list[str]:
    """What people call nodes of one kind, as far as rows say; else their ids."""
    idents = [split_node(one)[1] for one in nodes]
    called: dict[str, str] = {}
    if kind == "dataset_version":
        rows = reader.dataset_versions.select({"manifest": idents}, limit=_NAMED)
        called = {row.manifest: f"{row.dataset}@{row.number}" for row in rows}
    elif kind == "model_version":
        found = reader.model_versions.select({"id": idents}, limit=_NAMED)
        called = {row.id: f"{row.model}/{row.number}" for row in found}
    elif kind == "release":
        releases = reader.releases.select({"id": idents}, limit=_NAMED)
        called = {
            row.id: f"{row.model}/{row.number} on {row.endpoint} ({row.state}, {row.id})" for row in releases
        }
    return sorted(called.get(ident, ident) for ident in idents)


def _resolve(reader: Reader, what: str) -> Node:
    """The node that a person means.

    Raises:
        NotFound: the graph has no such node.
    """
    for found in _candidates(reader, what.strip()):
        if reader.ledger.down(found, depth=1, limit=1) or reader.ledger.up(found, depth=1, limit=1):
            return found
    raise NotFound(
        f"nothing is known as {what[:200]!r}",
        hint="say DATASET@NUMBER, MODEL/NUMBER, an id, a digest or KIND:ID; for a prediction use 'andon why'",
    )


def _candidates(reader: Reader, what: str) -> Iterator[Node]:
    kind, _, ident = what.partition(":")
    if kind in NODE_KINDS and ident:
        yield Node(what)
    if kind == "sha256":
        yield from (node(one, what) for one in _OF_CONTENT)
        for version in reader.model_versions.select({"digest": Digest(what)}, limit=1):
            yield node("model_version", version.id)
    if match := _NUMBERED.match(what):
        name, number = match[1], int(match[3])
        if match[2] == "@":
            for data in reader.dataset_versions.select({"dataset": name, "number": number}, limit=1):
                yield node("dataset_version", data.manifest)
        else:
            for version in reader.model_versions.select({"model": name, "number": number}, limit=1):
                yield node("model_version", version.id)
    for prefix, prefixed in _PREFIXES.items():
        if what.startswith(prefix):
            yield node(prefixed, what)
    if _RUN.match(what):
        yield node("run", what)
    if _SEGMENT.match(what):
        yield node("segment", what)
    yield node("line", what)


def _lines(said: Impact) -> Iterator[str]:
    kind, _ = split_node(said.node)
    yield f"{_word(kind, 1)} {said.name} was needed for:"
    yield from _group_lines(said.made, said.predictions)
    if not said.made:
        yield "  nothing"
    if said.led_to:
        yield "and only led to:"
        yield from _group_lines(said.led_to, said.led_to_predictions)
    if said.truncated:
        yield "there is more: every count is a lower bound"


def _group_lines(groups: Sequence[Group], predictions: int) -> Iterator[str]:
    for group in groups:
        names = ", ".join(islice(group.names, 5)) + (", ..." if group.count > 5 else "")
        yield f"  {group.count:,} {_word(group.kind, group.count)}: {names}"
    if groups:
        yield f"  {predictions:,} {_word('prediction', predictions)}"


def _word(kind: str, count: int) -> str:
    """A kind as a word for people.

    >>> _word("model_version", 2), _word("policy", 2), _word("code", 1)
    ('model versions', 'policies', 'code')
    """
    word = kind.replace("_", " ")
    if count == 1:
        return word
    return word[:-1] + "ies" if word.endswith("y") else word + "s"
