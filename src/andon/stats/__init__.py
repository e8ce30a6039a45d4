"""Pure statistics: arrays in, numbers out, with no clock and no input or output.

Bad input raises ValueError with a message that names the argument. Randomness is passed in as numbers.
"""

from andon.stats.intervals import Interval, wilson_interval
from andon.stats.ranking import Rates, auc, auc_difference, auc_interval, brier, log_loss, rates
from andon.stats.sequential import (
    CeilingEvidence,
    HarmEvidence,
    NoninferiorityEvidence,
    ceiling_log_e,
    harm_e_value,
    harm_log_e_value,
    noninferiority_log_e,
)

__all__ = [
    "CeilingEvidence",
    "HarmEvidence",
    "Interval",
    "NoninferiorityEvidence",
    "Rates",
    "auc",
    "auc_difference",
    "auc_interval",
    "brier",
    "ceiling_log_e",
    "harm_e_value",
    "harm_log_e_value",
    "log_loss",
    "noninferiority_log_e",
    "rates",
    "wilson_interval",
]
