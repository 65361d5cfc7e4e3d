"""Numbers to decisions: what each device of a round sends, gets and computes.

Pure and vectorised over devices: no Flower, no torch, no files, no clock.
"""

from .batch import batch_sizes, communication_seconds, round_seconds
from .clusters import Clusters, cluster
from .errors import PlanError
from .importance import importance, label_divergence, rank, upload_ratio
from .population import Population
from .rates import rate_for
from .staleness import download_ratio, staleness

__all__ = [
    "Clusters",
    "PlanError",
    "Population",
    "batch_sizes",
    "cluster",
    "communication_seconds",
    "download_ratio",
    "importance",
    "label_divergence",
    "rank",
    "rate_for",
    "round_seconds",
    "staleness",
    "upload_ratio",
]
