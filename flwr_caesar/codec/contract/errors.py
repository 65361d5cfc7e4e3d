"""Errors raised by codecs. Nothing else escapes from decoding a frame."""


class CodecError(ValueError):
    """Arrays cannot be encoded, or bytes are not a frame this codec can decode."""


class StateMismatchError(CodecError):
    """The frame was coded against a layout or codec state the decoder lacks.

    The remedy is a resync: ask the sender for a frame coded from no state.
    """
