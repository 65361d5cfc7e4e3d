"""Arrays to bytes and back: numpy and zstandard, no Flower, no torch, no I/O."""

from .contract.base import Codec
from .contract.errors import CodecError, StateMismatchError
from .contract.feedback import ErrorFeedback
from .contract.frame import FrameInfo, inspect_frame
from .contract.layout import Layout, TensorSpec
from .contract.registry import get_codec, list_codecs
from .contract.state import CodecState
from .contract.update import apply, difference, update_layout

__all__ = [
    "Codec",
    "CodecError",
    "CodecState",
    "ErrorFeedback",
    "FrameInfo",
    "Layout",
    "StateMismatchError",
    "TensorSpec",
    "apply",
    "difference",
    "get_codec",
    "inspect_frame",
    "list_codecs",
    "update_layout",
]
