"""What a codec of others looks like beside ours."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from flwr_caesar.codec import CodecError, Layout, get_codec
from flwr_caesar.codec.contract.layout import Array, Arrays, TensorSpec

_SIZE = struct.Struct("<I")


@dataclass(frozen=True, kw_only=True)
class Peer(ABC):
    """A codec of others, on the tensors on which ours are lossy.

    Large float32 tensors are theirs. All others are sent exactly, as our `dense` packs
    them, and count. Both sides know the layout, so that no name of a large tensor is
    counted; nor is a header, but for the length of each piece.

    Parameters
    ----------
    layout : Layout
        Of all rounds.
    exact_below : int
        Tensors of fewer elements are sent exactly.
    """

    layout: Layout
    exact_below: int = 1024

    id: ClassVar[str]
    module: ClassVar[str]
    install: ClassVar[str]

    @property
    def config(self) -> dict[str, Any]:
        """Name and settings, JSON-serialisable."""
        own = {k: v for k, v in asdict(self).items() if k != "layout"}
        return {"id": self.id, **own}

    @property
    def lossy(self) -> list[TensorSpec]:
        """The tensors that are coded by the peer."""
        return [
            spec
            for spec in self.layout.tensors
            if spec.dtype == "float32" and spec.size >= max(self.exact_below, 1)
        ]

    @abstractmethod
    def _encode(self, arrays: Arrays, state: Any) -> tuple[list[bytes], Any]:
        """Return the pieces of the lossy tensors, and what is remembered."""

    @abstractmethod
    def _decode(self, pieces: list[bytes], state: Any) -> tuple[dict[str, Array], Any]:
        """Return the lossy tensors by name, and what is remembered."""

    def error_bound(self, arrays: Arrays) -> Mapping[str, Array] | None:
        """Return the largest error promised for each element; `None` for no promise."""
        return None

    def encode(self, arrays: Arrays, state: Any = None) -> tuple[bytes, Any]:
        """Encode a round; see `flwr_caesar.codec.Codec.encode`."""
        names = {spec.name for spec in self.lossy}
        small = {name: array for name, array in arrays.items() if name not in names}
        pieces, state = self._encode({n: arrays[n] for n in names}, state)
        exact, _ = get_codec("dense").encode(small)
        return b"".join(_SIZE.pack(len(p)) + p for p in (exact, *pieces)), state

    def decode(self, frame: bytes, state: Any = None) -> tuple[dict[str, Array], Any]:
        """Decode a round; see `flwr_caesar.codec.Codec.decode`."""
        pieces, at = [], 0
        while at < len(frame):
            (size,) = _SIZE.unpack_from(frame, at)
            at += _SIZE.size
            pieces.append(frame[at : at + size])
            at += size
        decoded, _ = get_codec("dense").decode(pieces[0])
        found, state = self._decode(pieces[1:], state)
        decoded |= found
        return {spec.name: decoded[spec.name] for spec in self.layout.tensors}, state

    def require(self) -> None:
        """Refuse to go on where the peer is not installed.

        Raises
        ------
        CodecError
            With the line that installs it.
        """
        self._load(self.module)

    def _load(self, module: str) -> Any:
        try:
            return import_module(module)
        except ImportError as err:
            raise CodecError(
                f"{self.id} is not installed ({err}): {self.install}"
            ) from err


def relative_bounds(peer: Peer, arrays: Arrays, rel: float) -> dict[str, Array]:
    """Return ``rel`` times the range of each tensor; 0 for those sent exactly."""
    names = {spec.name for spec in peer.lossy}
    return {
        name: np.asarray(
            rel * (float(array.max()) - float(array.min())) if name in names else 0.0
        )
        for name, array in arrays.items()
    }
