"""Error feedback: what a lossy codec left out is added to the next input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .base import DEFAULT_MAX_BYTES, Codec
from .layout import Array, Arrays, Layout
from .state import CodecState


@dataclass(frozen=True)
class ErrorFeedback:
    """A codec whose encoder remembers its own error.

    ``u_t = x_t + e_(t-1)``, ``frame = C(u_t)``, ``e_t = u_t - decode(frame)``, so that
    the decoded values sum to the inputs but for the last residual. The frames are the
    inner codec's; the residual is private to the encoder
    (`CodecState.private`, float32, one array per floating-point tensor).

    Parameters
    ----------
    codec : Codec
        The codec to compensate.

    References
    ----------
    Seide et al. (2014); Karimireddy et al. (2019), arXiv:1901.09847.
    """

    codec: Codec

    @property
    def config(self) -> dict[str, Any]:
        """Configuration of the inner codec, which is what the frames carry."""
        return self.codec.config

    def encode(
        self, arrays: Arrays, state: CodecState | None = None
    ) -> tuple[bytes, CodecState]:
        """Encode ``arrays + residual``; see `Codec.encode`."""
        residual = _matching_residual(state, Layout.of(arrays))
        total = {
            name: (array + residual[name]).astype(array.dtype, copy=False)
            if name in residual
            else array
            for name, array in arrays.items()
        }
        frame, after = self.codec.encode(total, state)
        sent, _ = self.codec.decode(frame, state or CodecState(after.layout))
        left = {
            spec.name: total[spec.name].astype(np.float32)
            - sent[spec.name].astype(np.float32)
            for spec in after.layout.tensors
            if spec.is_float
        }
        return frame, replace(after, private=left)

    def decode(
        self,
        frame: bytes,
        state: CodecState | None = None,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> tuple[dict[str, Array], CodecState]:
        """Decode a frame of the inner codec; see `Codec.decode`."""
        return self.codec.decode(frame, state, max_bytes=max_bytes)


def _matching_residual(state: CodecState | None, layout: Layout) -> dict[str, Array]:
    if state is None:
        return {}
    shapes = {spec.name: spec.shape for spec in layout.tensors}
    return {
        name: array
        for name, array in state.private.items()
        if shapes.get(name) == array.shape
    }
