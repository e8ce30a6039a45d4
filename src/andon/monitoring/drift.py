"""The drift monitor of one model version: window after window of live inputs against the version's reference profile.

Each column's distance from the reference is ranked among the distances of the reference's own windows, thinned to as many rows
(a conformal p-value), each p-value is a bet, and a column's bets pile up in a Shiryaev-Roberts sum. Alarm asks for two things:

* evidence: the mean of the columns' sums is beyond the policy's `1 per N windows`, whatever the columns' number and
  dependence;
* materiality: a column that carries such evidence itself has moved by the policy's amount more than the reference's own windows
  usually do.

The reference's windows stay the measure: a live window never joins them, so a slow drift does not become the new normal.
That makes the promise approximate: in simulation without any drift and without the second condition there were 0.3 to 1.2
false alarms in 1,000 windows at N = 1,000 for 1 to 20 independent columns and 60 windows of reference, and 4 for 20 columns
and 20 windows. With fewer than 60 windows the finding says so.

Reference: Shin, Ramdas and Rinaldo (2024), "E-detectors: a nonparametric framework for sequential change detection".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import polars as pl

from andon.core.entities import MonitorWindow
from andon.core.policy import MonitorPolicy
from andon.core.predictions import PredictionRecord
from andon.core.routes import share
from andon.data.profiles import TableProfile, WindowDistances
from andon.monitoring.windows import MIN_ROWS, Finding
from andon.stats import NumericProfile, ShiryaevRoberts, conformal_p, e_from_p

ENOUGH_WINDOWS = 60
"""With fewer windows of reference the promise on false alarms is not kept as stated."""
_SHOWN = 20


class DriftMonitor:
    """Evidence of drift for one model version. `judge` looks, `replay` takes a written window in; only the second changes it.

    So the evidence follows from the windows that were written, and from nothing else: after a restart it is the same.

    Args:
        profile: the version's reference profile, as `TableProfile.to_bytes` wrote it.
        policy: window length, promise and materiality.

    Raises:
        Corrupt: the profile cannot be read.
    """

    def __init__(self, profile: bytes, policy: MonitorPolicy) -> None:
        self._profile = TableProfile.from_bytes(profile)
        self._policy = policy
        self._sums = {name: ShiryaevRoberts() for name in self._profile.columns}

    def judge(self, records: Sequence[PredictionRecord], *, key: str) -> Finding:
        """What a window of answers shows. `key` names the window; ties of p-values are broken by a draw that follows from it.

        Requests that the gateway failed to answer are left out.
        """
        answered = [record for record in records if record.status < 500]
        if len(answered) < MIN_ROWS:
            return _silent(len(answered), f"{len(answered)} requests: too few to judge")
        found = self._profile.window(self._frame(answered))
        usual = {name: far for name, far in found.calibration.items() if far}
        if not usual:
            return _silent(
                len(answered), "the reference has no windows to compare with: drift cannot be judged"
            )
        p = {name: conformal_p(far, found.distances[name], share(key, name)) for name, far in usual.items()}
        return self._finding(found, p, fewest=min(len(far) for far in usual.values()))

    def replay(self, row: MonitorWindow) -> None:
        """Take in a window that was written, by this monitor or by another of the same version."""
        self._sums = self._after(row.details.get("p", {}))

    def _after(self, p: Mapping[str, float]) -> dict[str, ShiryaevRoberts]:
        return {
            name: total.update(e_from_p(p[name])) if name in p else total
            for name, total in self._sums.items()
        }

    def _finding(self, found: WindowDistances, p: Mapping[str, float], *, fewest: int) -> Finding:
        policy = self._policy
        sums = self._after(p)
        evidence = _log_mean(sums)
        line = math.log10(1.0 + policy.false_alarms_per)
        ranked = sorted(p, key=lambda name: (-sums[name].log1p, name))
        moved = [
            name for name in ranked if sums[name].log_e > line and found.excess[name] >= policy.materiality
        ]
        largest = max(ranked, key=lambda name: (found.excess[name], name))
        said = ", ".join(
            f"{name} by {found.effects[name]:.2f} ({found.excess[name]:.2f} more than usual)"
            for name in (moved or [largest])[:3]
        )
        few = (
            ""
            if fewest >= ENOUGH_WINDOWS
            else f"; only {fewest} windows of reference, false alarms may be more than promised"
        )
        return Finding(
            rows=found.rows,
            value=found.excess[largest],
            low=None,
            high=None,
            evidence=evidence,
            alarm=evidence > line and bool(moved),
            summary=f"{found.rows} requests: moved most: {said}; evidence 1e{evidence:.1f} of 1e{line:.1f}{few}",
            details={
                "p": dict(p),
                "line": line,
                "materiality": policy.materiality,
                "reference_windows": fewest,
                "columns": [_column(found, name, p[name], sums[name]) for name in ranked[:_SHOWN]],
            },
        )

    def _frame(self, records: Sequence[PredictionRecord]) -> pl.DataFrame:
        """The profiled inputs of requests; what is of another kind than its column's counts as null."""
        return pl.DataFrame(
            [
                pl.Series(name, [_number(record.inputs.get(name)) for record in records], pl.Float64)
                if isinstance(profile, NumericProfile)
                else pl.Series(name, [_text(record.inputs.get(name)) for record in records], pl.String)
                for name, profile in self._profile.columns.items()
            ]
        )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _text(value: object) -> str | None:
    """Words as they are, and booleans as a profile writes them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else None


def _column(found: WindowDistances, name: str, p: float, total: ShiryaevRoberts) -> dict[str, object]:
    return {
        "column": name,
        "distance": found.distances[name],
        "effect": found.effects[name],
        "excess": found.excess[name],
        "p": p,
        "evidence": total.log_e,
    }


def _log_mean(sums: Mapping[str, ShiryaevRoberts]) -> float:
    """Decimal logarithm of 1 + the mean of the sums, which may be beyond the range of floats."""
    logs = [total.log1p for total in sums.values()]
    top = max(logs)
    return (top + math.log(math.fsum(math.exp(one - top) for one in logs) / len(logs))) / math.log(10.0)


def _silent(rows: int, summary: str) -> Finding:
    return Finding(
        rows=rows, value=None, low=None, high=None, evidence=None, alarm=False, summary=summary, details={}
    )
