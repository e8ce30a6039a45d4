"""Ids. Each kind has a type of its own, so that a run id never fits where a release id is wanted.

Rows are named by UUIDv7 (time-ordered, RFC 9562); content is named by its digest (`core.canonical`). A prediction
id is a UUIDv7 that also carries the boot of the worker that answered and the record's number in that boot, so any
prediction is found without an index with a row for each, and a clock that jumps hides nothing.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import NamedTuple, NewType
from uuid import UUID

from andon.core.errors import Invalid

ActorId = NewType("ActorId", str)
ExperimentId = NewType("ExperimentId", str)
RunId = NewType("RunId", str)
LoggedModelId = NewType("LoggedModelId", str)
ModelVersionId = NewType("ModelVersionId", str)
VerdictId = NewType("VerdictId", str)
ApprovalId = NewType("ApprovalId", str)
ReleaseId = NewType("ReleaseId", str)
RolloutId = NewType("RolloutId", str)
AlertId = NewType("AlertId", str)
TriggerId = NewType("TriggerId", str)
OverrideId = NewType("OverrideId", str)
PredictionId = NewType("PredictionId", str)
SegmentId = NewType("SegmentId", str)
Node = NewType("Node", str)
"""A node of the lineage graph: `kind:id`, such as `run:0192...` or `dataset_version:sha256:...`."""

_PREFIX = {
    "actor": "act_", "run": "", "logged_model": "m-", "model_version": "mv_", "verdict": "vd_", "approval": "ap_",
    "release": "rel_", "rollout": "ro_", "alert": "al_", "trigger": "tr_", "override": "ov_",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}\Z")

BOOT_BITS = 40
NUMBER_BITS = 34


def uuid7(at_ms: int | None = None) -> UUID:
    """A UUIDv7 at a time in milliseconds since 1970 (now by default); 74 random bits.

    >>> uuid7(1_700_000_000_000).hex[:12]
    '018bcfe56800'
    """
    stamp = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    return _uuid7(stamp, secrets.randbits(74))


def new_id(kind: str) -> str:
    """A new id for a row of a kind: the kind's prefix and 32 hex characters in order of time.

    >>> new_id("release")[:4], len(new_id("run"))
    ('rel_', 32)
    """
    return _PREFIX[kind] + uuid7().hex


def node(kind: str, ident: str) -> Node:
    """The lineage node of a thing.

    >>> node("run", "r1")
    'run:r1'
    """
    return Node(f"{kind}:{ident}")


def split_node(value: Node) -> tuple[str, str]:
    """Kind and id of a node.

    >>> split_node(Node("dataset_version:sha256:ab"))
    ('dataset_version', 'sha256:ab')
    """
    kind, _, ident = value.partition(":")
    return kind, ident


def check_name(kind: str, text: str) -> str:
    """Check a name a person gave (line, endpoint, model, dataset): a letter, then letters, digits, `_ . -`, at most 100.

    Raises:
        Invalid: it does not fit.

    >>> check_name("endpoint", "churn")
    'churn'
    """
    if not _NAME.match(text):
        raise Invalid(
            f"{text[:80]!r} cannot name a {kind}",
            hint="a name is a letter and then letters, digits, '_', '.' or '-', at most 100",
        )
    return text


class PredictionRef(NamedTuple):
    """What a prediction id says: wall time in milliseconds, the worker's boot (40 bits), the record's number in it."""

    at_ms: int
    boot: int
    number: int


def prediction_id(at_ms: int, boot: int, number: int) -> PredictionId:
    """The id of record `number` (0, 1, 2, ...) of a worker's boot.

    >>> parse_prediction_id(prediction_id(1_700_000_000_000, 77, 5))
    PredictionRef(at_ms=1700000000000, boot=77, number=5)
    """
    return PredictionId(str(_uuid7(at_ms, (boot << NUMBER_BITS) | number)))


def parse_prediction_id(text: str) -> PredictionRef:
    """Take a prediction id apart.

    Raises:
        Invalid: it is not a UUIDv7 in the form that answers carry (letters of either case).
    """
    try:
        value = UUID(text)
    except ValueError:
        value = UUID(int=0)
    if value.version != 7 or str(value) != text.lower():
        raise Invalid(
            f"{text[:80]!r} is not a prediction id", hint="it comes with every answer as 'prediction_id'"
        )
    low = ((value.int >> 64 & 0xFFF) << 62) | (value.int & (2**62 - 1))
    return PredictionRef(value.int >> 80, low >> NUMBER_BITS, low & (2**NUMBER_BITS - 1))


def _uuid7(at_ms: int, low: int) -> UUID:
    """Version, variant and 74 low bits laid out as RFC 9562 asks."""
    head = (at_ms & (2**48 - 1)) << 80 | 7 << 76 | (low >> 62) << 64
    return UUID(int=head | 2 << 62 | (low & (2**62 - 1)))
