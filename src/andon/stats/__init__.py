"""Pure statistics: arrays in, numbers out, with no clock and no input or output.

Bad input raises ValueError with a message that names the argument. Randomness is passed in as numbers.
"""

from andon.stats.detector import ColumnDetector, ColumnDetectors, ShiryaevRoberts, conformal_p, e_from_p
from andon.stats.distances import js_distance, ks_distance, psi, w1_over_std
from andon.stats.intervals import Interval, wilson_interval
from andon.stats.profile import (
    CategoricalProfile,
    Counts,
    NumericProfile,
    Profile,
    bin_counts,
    profile_from_dict,
)
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
    # intervals and ranking
    "Interval",
    "Rates",
    "auc",
    "auc_difference",
    "auc_interval",
    "brier",
    "log_loss",
    "rates",
    "wilson_interval",
    # sequential tests
    "CeilingEvidence",
    "HarmEvidence",
    "NoninferiorityEvidence",
    "ceiling_log_e",
    "harm_e_value",
    "harm_log_e_value",
    "noninferiority_log_e",
    # profiles and drift
    "CategoricalProfile",
    "ColumnDetector",
    "ColumnDetectors",
    "Counts",
    "NumericProfile",
    "Profile",
    "ShiryaevRoberts",
    "bin_counts",
    "conformal_p",
    "e_from_p",
    "js_distance",
    "ks_distance",
    "profile_from_dict",
    "psi",
    "w1_over_std",
]
