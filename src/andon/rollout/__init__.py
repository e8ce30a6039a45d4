"""Safe change: plans, guards and undo. Decides purely (`plan.decide`), acts in transactions (`rollouts`, `routes`)."""

from andon.rollout.evidence import Evidence, Guard, gather, record_time
from andon.rollout.plan import Decision, decide
from andon.rollout.rollouts import advance_step, finish, pause, resume, rollout_of, start, switch, undo
from andon.rollout.routes import adopt, journal, publish, route_file

__all__ = [
    "Decision", "Evidence", "Guard", "adopt", "advance_step", "decide", "finish", "gather", "journal", "pause", "publish",
    "record_time", "resume", "rollout_of", "route_file", "start", "switch", "undo",
]  # fmt: skip
