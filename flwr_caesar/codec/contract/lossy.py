"""What lossy codecs share: small tensors exactly, the others as one vector."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from .base import Codec
from .exact import pack_exact, require_exact_below, split_exact, unpack_exact
from .frame import FrameReader, Section
from .layout import Array, Arrays, Layout, TensorSpec, to_dtype
from .state import CodecState
from .vector import Vector, gather, in_layout_order, scatter

Encoded = tuple[Sequence[Section], Mapping[str, Array]]
Decoded = tuple[Vector, Mapping[str, Array]]


class LossyCodec(Codec):
    """A codec that is exact on small tensors and lossy on the rest.

    Floating-point tensors of at least `exact_below` elements are open to loss. They
    reach the subclass as one float32 vector, in the order of the layout, and the
    subclass returns one; all other tensors are sent bit for bit, and every tensor comes
    back in its own dtype.

    Subclasses set `id`, have a field `exact_below`, and implement `_encode_vector` and
    `_decode_vector`, which are called only where a tensor is open to loss.
    """

    exact_below: int

    def __post_init__(self) -> None:
        require_exact_below(self.id, self.exact_below)

    @abstractmethod
    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        """Return the sections of the vector and the shared memory after this frame.

        Parameters
        ----------
        vector : ndarray of float32, shape (n,)
            The tensors one after the other; the codec may change it.
        lossy : sequence of TensorSpec
            Names, shapes and dtypes of these; `vector.slices` says where each lies.
        state : CodecState, optional
            What is remembered from the frame before; `None` without a memory.
        """

    @abstractmethod
    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        """Return the vector and the shared memory after this frame."""

    def _encode_decoded_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array], Vector | None]:
        """Return what `_encode_vector` does, and what `_decode_vector` will make of it.

        `None` if that takes decoding the frame. A codec that knows it from encoding
        overrides this.
        """
        return *self._encode_vector(vector, lossy, state), None

    def _split(self, layout: Layout) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """Return the tensors sent exactly and those open to loss."""
        return split_exact(layout, self.exact_below)

    def _encode(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> Encoded:
        exact, lossy = self._split(layout)
        sections = pack_exact(arrays, exact)
        if not lossy:
            return sections, {}
        own, memory = self._encode_vector(gather(arrays, lossy), lossy, state)
        return [*sections, *own], memory

    def _encode_decoded(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array], dict[str, Array] | None]:
        exact, lossy = self._split(layout)
        sections = pack_exact(arrays, exact)
        decoded = {s.name: np.array(arrays[s.name], to_dtype(s.dtype)) for s in exact}
        if not lossy:
            return sections, {}, decoded
        own, memory, vector = self._encode_decoded_vector(
            gather(arrays, lossy), lossy, state
        )
        sections += own
        if vector is None:
            return sections, memory, None
        decoded |= scatter(vector, lossy)
        return sections, memory, in_layout_order(layout, decoded)

    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        exact, lossy = self._split(layout)
        arrays = unpack_exact(reader, exact)
        if not lossy:
            return in_layout_order(layout, arrays), {}
        own, memory = self._decode_lossy(reader, lossy, state)
        return in_layout_order(layout, arrays | own), memory

    def _decode_lossy(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        """Return the tensors open to loss and the shared memory after this frame.

        By default those of `_decode_vector`. A codec whose frames leave tensors out
        overrides this.
        """
        vector, memory = self._decode_vector(reader, lossy, state)
        return scatter(vector, lossy), memory
