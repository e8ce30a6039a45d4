"""Pure statistics: arrays in, numbers out, with no clock and no input or output.

Bad input raises ValueError with a message that names the argument. Randomness is passed in as numbers.
"""

from andon.stats.intervals import Interval, wilson_interval
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
    "ceiling_log_e",
    "harm_e_value",
    "harm_log_e_value",
    "noninferiority_log_e",
    "wilson_interval",
]
