"""Holding a lease: taking it, proving life, and taking it over from a holder that is gone.

No time is stored and no clocks are compared. A holder raises its beat; who waits watches the beat on its own monotonic
clock and takes over when it has stood still for `ttl_s`, or at once when the holder was a process of this machine that is
no more. A holder that was only slow finds its fence outdated: every transaction that checks the lease is refused.
"""

from __future__ import annotations

import os
import platform
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from andon.core.clock import Clock
from andon.core.entities import Lease
from andon.core.errors import Conflict, LeaseLost
from andon.store.ports import Store

_PROC = Path("/proc")


def process_holder() -> str:
    """How this process is called as a holder: `host:pid:start`, never the same for two processes.

    >>> process_holder() == process_holder()
    True
    """
    pid = os.getpid()
    return f"{_host()}:{pid}:{_start(pid) or 0}"


def holder_gone(holder: str) -> bool:
    """Whether a holder was a process of this machine that has ended. False when that cannot be known.

    >>> holder_gone(process_holder()), holder_gone("elsewhere:1:1")
    (False, False)
    """
    host, _, rest = holder.partition(":")
    pid, _, start = rest.partition(":")
    if host != _host() or not pid.isdecimal():
        return False
    if _has_proc():
        return str(_start(int(pid))) != start
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


class LeaseKeeper:
    """One process' side of a lease. For one thread only.

    Args:
        store: where the lease is.
        name: what the right is to.
        holder: this process, as `process_holder` calls it.
        clock: its monotonic time is used.
        ttl_s: how long a beat may stand still before the lease is taken over, > 0.
        gone: whether a holder is known to be no more.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        holder: str,
        clock: Clock,
        ttl_s: float = 2.0,
        *,
        gone: Callable[[str], bool] = holder_gone,
    ) -> None:
        self._store = store
        self._name = name
        self._holder = holder
        self._clock = clock
        self._ttl_s = ttl_s
        self._gone = gone
        self._lease: Lease | None = None
        self._beaten_s = 0.0
        self._seen: Lease | None = None
        self._seen_s = 0.0

    def hold(self) -> Lease | None:
        """The lease, if it is this process' own now; None while somebody else holds it. To be called again and again.

        Beats by itself when a third of `ttl_s` has passed since the last beat.
        """
        if self._lease is not None:
            if self._clock.monotonic_s() - self._beaten_s < self._ttl_s / 3:
                return self._lease
            try:
                return self.beat()
            except LeaseLost:
                self._lease = None
        found = self._store.read(lambda reader: reader.leases.find(self._name))
        return self._take(found) if found is None or self._silent(found) else None

    def beat(self) -> Lease:
        """Prove life now.

        Raises:
            LeaseLost: it is not held, or was taken over.
        """
        lease = self._lease
        if lease is None:
            raise LeaseLost(f"lease {self._name!r} is not held", hint="hold it first")
        before_s = self._clock.monotonic_s()
        self._lease = self._store.write(lambda tx: tx.leases.beat(lease))
        self._beaten_s = before_s
        return self._lease

    def drop(self) -> None:
        """Give the lease back, so that the next one need not wait. Dropping what is not held changes nothing."""
        lease, self._lease = self._lease, None
        if lease is not None:
            self._store.write(lambda tx: tx.leases.drop(lease))

    def _take(self, seen: Lease | None) -> Lease | None:
        before_s = self._clock.monotonic_s()
        try:
            self._lease = self._store.write(lambda tx: tx.leases.take(self._name, self._holder, seen=seen))
        except Conflict:
            return None
        self._beaten_s, self._seen = before_s, None
        return self._lease

    def _silent(self, found: Lease) -> bool:
        """Whether the holder has been seen without a beat for long enough, or is gone."""
        now_s = self._clock.monotonic_s()
        if found != self._seen:
            self._seen, self._seen_s = found, now_s
        return now_s - self._seen_s >= self._ttl_s or self._gone(found.holder)


def _has_proc() -> bool:
    return sys.platform == "linux" and (_PROC / "self" / "stat").exists()


def _host() -> str:
    """This boot of this machine; on Linux this space of process numbers too, which a container has of its own."""
    if not _has_proc():
        return f"{platform.node()}-{uuid.getnode():012x}".replace(":", "-")
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{(_PROC / 'self/ns/pid').readlink().name.strip('pid:[]')}"


def _start(pid: int) -> int | None:
    """When a process began, in ticks since boot; None when it has ended or that cannot be known."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ended = fields[0] in ("Z", "X")
    return None if ended else int(fields[19])
