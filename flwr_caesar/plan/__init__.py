"""Numbers to decisions: what each device of a round sends, gets and computes.

Pure and vectorised over devices: no Flower, no torch, no files, no clock.
"""

from .batch import batch_sizes, communication_seconds, round_seconds
from .by_size import by_size
from .clock import VirtualClock
from .clusters import Clusters, cluster
from .deadline import DeadlinePlan, fit_deadline
from .errors import PlanError
from .estimates import Estimate, Estimates
from .importance import importance, label_divergence, rank, upload_ratio
from .population import Population
from .power_modes import PowerModes
from .presence import Presence
from .profiles import DeviceClass, LinkClass, PowerMode, Profile
from .rates import rate_for
from .staleness import download_ratio, staleness
from .times import RoundTimes, Totals

__all__ = [
    "Clusters",
    "DeadlinePlan",
    "DeviceClass",
    "Estimate",
    "Estimates",
    "LinkClass",
    "PlanError",
    "Population",
    "PowerMode",
    "PowerModes",
    "Presence",
    "Profile",
    "RoundTimes",
    "Totals",
    "VirtualClock",
    "batch_sizes",
    "by_size",
    "cluster",
    "communication_seconds",
    "download_ratio",
    "fit_deadline",
    "importance",
    "label_divergence",
    "rank",
    "rate_for",
    "round_seconds",
    "staleness",
    "upload_ratio",
]
