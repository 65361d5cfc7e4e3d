"""`lattice`: dead-zone integers on a power-of-two lattice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.compact_block import in_steps
from ..coding.contexts import Scales, as_channels, count_scales
from ..coding.past import Past
from ..contract.errors import CodecError
from ..contract.frame import FrameReader, Section
from ..contract.layout import Array, Layout, TensorSpec, to_dtype
from ..contract.lossy import Decoded, Encoded, LossyCodec
from ..contract.state import CodecState
from ..contract.update import update_layout
from ..contract.vector import Vector, scatter, slices
from ..predictors.lattice_products import add, take_out
from ..predictors.narrowed import narrow, widen
from ..predictors.outer_products import MAX_RANK, Products
from ..predictors.product_sections import has_sections, pack_products, read_products
from ..quantisers.lattice_sections import (
    pack_quantised,
    unpack_quantised,
    with_zeros,
)
from ..quantisers.lattice_steps import (
    Quantised,
    Target,
    extra_bits,
    quantise,
)
from ..quantisers.quantise import lattice_values
from ..quantisers.step_search import Step


@frozen
class LatticeCodec(LossyCodec):
    """Dead-zone quantiser with one step for all tensors, context-coded.

    ``q = sign(x) floor(|x| / step + 1 - dead_zone)``, ``xhat = q step``. The step is
    ``m 2^e`` with `m` from 4 to 7, so that decoded values are integers on the lattice
    ``2^e`` and differences of two of them are exact. Equal steps give all tensors the
    least squared error for a total rate. Biased: put it under `ErrorFeedback`, and set
    `dead_zone` to 0.5 there: what is left out of small elements again and again then
    comes late less often, which is worth more than the bits.

    Exactly one of `rate`, `step` and `nmse` is in force: `step` if not 0, else `nmse`
    if not 0, else `rate`.

    Parameters
    ----------
    rate : float
        Bits an element of the lossy tensors, side information included; met within a
        few percent, from a sample.
    step : float
        Quantiser step in units of the update, taken to the nearest ``m 2^e``.
    nmse : float
        ``||x - xhat||^2 / ||x||^2`` over the lossy tensors; met within a few percent.
    exact_below : int
        Smaller tensors are sent exactly.
    fine_below : int
        Smaller tensors that are not exact, such as biases and norms with an
        `exact_below` of 0, are quantised with a step 64 times finer: about a byte an
        element, with an error that does not matter. `rate` and `nmse` count the other
        tensors, if there are any. 0 for none.
    dead_zone : float
        From 0.5, rounding to nearest, to 1, truncation; 0: what costs the fewest bits
        at the error or has the least error at the rate, and 0.66 for a `step`. With
        one that is given, an error is met from below, by up to a third.
    compact : bool
        Whether indices are coded in the compact form of a block: signs of channels, and
        less beside the indices. For the same steps a few percent fewer bytes; releases
        before it do not read them.
    memory : bool
        Whether the last update of the same sender, without its products, which both
        sides then remember (two bytes an element), tells magnitudes and signs. Only
        with `compact`.
    rank : int
        The most outer products that a matrix or convolution is also predicted by
        (`outer_products.Products`), from 0 to 32; as many are sent as save bytes. Only
        for an `nmse`.

    References
    ----------
    Sullivan (1996), "Efficient scalar quantization of exponential and Laplacian random
    variables", for the dead zone with reconstruction at multiples of the step.
    """

    rate: float = 1.0
    step: float = 0.0
    nmse: float = 0.0
    exact_below: int = 1024
    fine_below: int = 0
    dead_zone: float = 0.0
    compact: bool = False
    memory: bool = False
    rank: int = 0

    id: ClassVar[str] = "lattice"
    later: ClassVar[frozenset[str]] = frozenset(
        {"fine_below", "dead_zone", "compact", "memory", "rank"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fine_below and self.fine_below <= self.exact_below:
            raise CodecError(
                f"lattice: fine_below must be 0 or above exact_below, which is "
                f"{self.exact_below}, not {self.fine_below}"
            )
        if not 0 < self.rate <= 16:
            raise CodecError(f"lattice: rate must be in (0, 16], not {self.rate}")
        if self.step:
            Step.near(self.step)
        if not 0 <= self.nmse < 1:
            raise CodecError(f"lattice: nmse must be in [0, 1), not {self.nmse}")
        if self.dead_zone and not 0.5 <= self.dead_zone <= 1:
            raise CodecError(
                f"lattice: dead_zone must be 0 or in [0.5, 1], not {self.dead_zone}"
            )
        if self.memory and not self.compact:
            raise CodecError("lattice: memory needs compact, which is false")
        if not 0 <= self.rank <= MAX_RANK:
            raise CodecError(f"lattice: rank must be 0 to {MAX_RANK}, not {self.rank}")

    def memory_nbytes(self, layout: Layout) -> int:
        """Return the bytes that either side remembers of a device.

        Two an element of the lossy tensors, and two a scale (`wire-format.md`).
        """
        _, lossy = self._split(update_layout(layout))
        if not self.memory:
            return 0
        scales = sum(count_scales(as_channels(spec.shape)) for spec in lossy)
        return 2 * sum(spec.size for spec in lossy) + 2 * scales

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        sections, memory, _ = self._encoded(vector, lossy, state, told=self.memory)
        return sections, memory

    def _encode_decoded_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array], Vector | None]:
        return self._encoded(vector, lossy, state, told=True)

    def _encoded(
        self,
        vector: Vector,
        lossy: Sequence[TensorSpec],
        state: CodecState | None,
        *,
        told: bool,
    ) -> tuple[Sequence[Section], Mapping[str, Array], Vector | None]:
        """Return sections and memory, and what they decode to if it is to be `told`."""
        found, products = self._quantise(vector, lossy)
        past = self._past(found.step, found.offsets, lossy, state)
        sections, scales = pack_quantised(found, lossy, past, compact=self.compact)
        sections = [*sections, *pack_products(products)]
        if not told:
            return sections, {}, None
        values = self._values(found, lossy)
        memory = self._remembered(values, lossy, scales)
        _add_products(values, lossy, products)
        return sections, memory, values

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        past = partial(self._past, lossy=lossy, state=state)
        found, scales, kept = unpack_quantised(
            reader, lossy, past, compact=self.compact
        )
        found = replace(found, indices=with_zeros(found.indices, lossy, kept))
        products = read_products(reader, lossy, self.rank)
        values = self._values(found, lossy)
        memory = self._remembered(values, lossy, scales)
        _add_products(values, lossy, products)
        return values, memory

    def _decode_lossy(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        if self.memory or has_sections(reader):
            return super()._decode_lossy(reader, lossy, state)
        found, _, kept = unpack_quantised(reader, lossy, compact=self.compact)
        present = [lossy[i] for i in kept]
        offsets = tuple(found.offsets[i] for i in kept)
        values = self._values(replace(found, offsets=offsets), present)
        arrays = scatter(values, present)
        # Memory of zeros that nobody touched takes none.
        return {
            spec.name: arrays[spec.name]
            if spec.name in arrays
            else np.zeros(spec.shape, to_dtype(spec.dtype))
            for spec in lossy
        }, {}

    def _quantise(
        self, vector: Vector, lossy: Sequence[TensorSpec]
    ) -> tuple[Quantised, Sequence[Products | None]]:
        """Return integers, and the products that they are beside, in place."""
        products: Sequence[Products | None] = [None] * len(lossy)
        nmse, before = self.nmse, None
        if self.rank and nmse and not self.step:
            products, nmse, before = take_out(
                vector, lossy, nmse, self.rank, self.fine_below
            )
        target = Target(self.rate, self.step, nmse, self.fine_below, self.dead_zone)
        return quantise(vector, lossy, target, before), products

    def _values(self, found: Quantised, lossy: Sequence[TensorSpec]) -> Vector:
        """Return the vector that the indices stand for, in their place."""
        for spec, part, offset in zip(lossy, slices(lossy), found.offsets, strict=True):
            exponent = self._exponent(found.step, offset, spec)
            lattice_values(found.indices[part], exponent, found.step.multiple)
        return found.indices.view(np.float32)

    def _exponent(self, step: Step, offset: int, spec: TensorSpec) -> int:
        """Return the exponent of a tensor's own step."""
        return step.exponent + offset - extra_bits(spec, self.fine_below)

    def _past(
        self,
        step: Step,
        offsets: Sequence[int],
        lossy: Sequence[TensorSpec],
        state: CodecState | None,
    ) -> Past | None:
        """Return what both sides know of the tensors, in steps of this frame."""
        if not self.memory or state is None:
            return None
        with np.errstate(over="ignore"):  # of hostile offsets
            steps = [
                np.ldexp(np.float32(step.multiple), self._exponent(step, offset, spec))
                for spec, offset in zip(lossy, offsets, strict=True)
            ]
        held = [state.arrays[f"previous/{spec.name}"].reshape(-1) for spec in lossy]
        scales = [state.arrays[f"scales/{spec.name}"] for spec in lossy]

        def previous(i: int) -> Vector:
            return in_steps(widen(held[i]), steps[i])

        return Past(previous, scales)

    def _remembered(
        self, values: Vector, lossy: Sequence[TensorSpec], scales: Sequence[Scales]
    ) -> Mapping[str, Array]:
        if not self.memory:
            return {}
        parts = zip(lossy, slices(lossy), scales, strict=True)
        memory: dict[str, Array] = {}
        for spec, part, own in parts:
            memory[f"previous/{spec.name}"] = narrow(values[part]).reshape(spec.shape)
            memory[f"scales/{spec.name}"] = own
        return memory


def _add_products(
    vector: Vector, lossy: Sequence[TensorSpec], products: Sequence[Products | None]
) -> None:
    for spec, part, own in zip(lossy, slices(lossy), products, strict=True):
        if own is not None:
            add(vector[part].reshape(as_channels(spec.shape)), own)
