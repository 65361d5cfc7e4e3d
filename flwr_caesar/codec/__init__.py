"""Arrays to bytes and back: numpy and zstandard, no Flower, no torch, no I/O."""

from .base import Codec
from .errors import CodecError, StateMismatchError
from .feedback import ErrorFeedback
from .frame import FrameInfo, inspect_frame
from .layout import Layout, TensorSpec
from .registry import get_codec, list_codecs
from .state import CodecState
from .update import apply, difference, update_layout

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
