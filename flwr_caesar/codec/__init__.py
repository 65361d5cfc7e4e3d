"""Arrays to bytes and back: numpy and zstandard, no Flower, no torch, no I/O.

What users and authors of codecs need is here. Published models are in `published`; in
which of the other rooms a name lies may change.
"""

from .contract.base import Codec
from .contract.errors import CodecError, StateMismatchError
from .contract.feedback import ErrorFeedback
from .contract.frame import FrameInfo, FrameReader, Section, inspect_frame
from .contract.layout import Array, Arrays, Layout, TensorSpec
from .contract.lossy import LossyCodec
from .contract.registry import get_codec, list_codecs
from .contract.state import CodecState
from .contract.update import apply, difference, update_layout
from .contract.vector import Vector, slices

__all__ = [
    "Array",
    "Arrays",
    "Codec",
    "CodecError",
    "CodecState",
    "ErrorFeedback",
    "FrameInfo",
    "FrameReader",
    "Layout",
    "LossyCodec",
    "Section",
    "StateMismatchError",
    "TensorSpec",
    "Vector",
    "apply",
    "difference",
    "get_codec",
    "inspect_frame",
    "list_codecs",
    "slices",
    "update_layout",
]
