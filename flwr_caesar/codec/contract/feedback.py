"""Error feedback: what a lossy codec left out is added to the next input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from flwr_caesar.frozen import frozen

from .base import DEFAULT_MAX_BYTES, Codec
from .layout import Array, Arrays, Layout, TensorSpec, to_dtype
from .state import CodecState

_NOTHING = np.float32(-0.0)  # unlike 0.0, adding it keeps the sign of -0.0


@frozen
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
        layout = Layout.of(arrays)
        residual = _matching_residual(state, layout)
        total = {
            spec.name: arrays[spec.name].astype(_wide(spec))
            + residual.get(spec.name, _NOTHING)
            for spec in layout.tensors
            if spec.is_float
        }
        rounded = {
            spec.name: total[spec.name].astype(to_dtype(spec.dtype), copy=False)
            if spec.is_float
            else arrays[spec.name]
            for spec in layout.tensors
        }
        frame, sent, after = self.codec.encode_decoded(rounded, state)
        left = {name: _subtract(total[name], sent[name]) for name in total}
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


def _wide(spec: TensorSpec) -> type[np.floating[Any]]:
    return np.float64 if spec.dtype == "float64" else np.float32


def _subtract(total: Array, sent: Array) -> Array:
    return np.asarray(total - sent.astype(total.dtype), np.float32)


def _matching_residual(state: CodecState | None, layout: Layout) -> dict[str, Array]:
    if state is None:
        return {}
    shapes = {spec.name: spec.shape for spec in layout.tensors if spec.is_float}
    return {
        name: array
        for name, array in state.private.items()
        if shapes.get(name) == array.shape
    }
