"""Flower strategies that wrap another strategy and compress its traffic."""

from .caesar import Caesar
from .cafe import CAFe
from .compressed import CompressedStrategy
from .correlation_aware import CorrelationAware
from .error_bounded import ErrorBounded
from .errors import TrainingFailedError
from .fedcomloc import FedComLoc
from .guard import Guard
from .method import ServerMethod
from .options import WrapperOptions
from .pruning import MagnitudePruning
from .qsgd import QSGD
from .sign_ef import SignEF
from .topk import TopK
from .uncompressed import Uncompressed

__all__ = [
    "QSGD",
    "CAFe",
    "Caesar",
    "CompressedStrategy",
    "CorrelationAware",
    "ErrorBounded",
    "FedComLoc",
    "Guard",
    "MagnitudePruning",
    "ServerMethod",
    "SignEF",
    "TopK",
    "TrainingFailedError",
    "Uncompressed",
    "WrapperOptions",
]
