"""Safe change: plans, guards and undo. Decides purely (`plan.decide`), acts in transactions (`rollouts`, `routes`)."""

from andon.rollout.evidence import Evidence, Guard, Tally, gather, record_time
from andon.rollout.plan import Decision, decide
from andon.rollout.rollouts import (
    advance_step,
    began,
    finish,
    pause,
    proceed,
    resume,
    rollout_of,
    start,
    switch,
    undo,
)
from andon.rollout.routes import adopt, journal, publish, route_file, unadopted

__all__ = [
    "Decision", "Evidence", "Guard", "Tally", "adopt", "advance_step", "began", "decide", "finish", "gather", "journal",
    "pause", "proceed", "publish", "record_time", "resume", "rollout_of", "route_file", "start", "switch", "unadopted", "undo",
]  # fmt: skip
