"""`error_bounded`: every element within a bound, predicted across rounds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.contexts import as_channels, count_scales
from ..coding.integers import Integers, decode_integers, encode_integers
from ..coding.positions import encode_positions, read_positions
from ..contract.base import Codec
from ..contract.deferred import Deferred
from ..contract.errors import CodecError
from ..contract.exact import pack_exact, unpack_exact
from ..contract.frame import FrameReader, Section
from ..contract.layout import Array, Arrays, Layout, TensorSpec, to_dtype
from ..contract.state import CodecState
from ..contract.update import update_layout
from ..contract.vector import Vector, in_layout_order, slices
from ..predictors import bounded_tensor as tensor
from ..predictors.bounded_indices import max_packed, pack_indices, unpack_indices
from ..predictors.bounded_tensor import Coded, History
from ..predictors.outer_products import MAX_RANK
from ..predictors.predict import Mode
from ..predictors.product_sections import pack_products, read_products
from ..predictors.published import (
    AUTO,
    MODES,
    Statistics,
    check_predictor,
    needs_scores,
    statistics,
)

_TENSOR = np.dtype([("step", "<f4"), ("gains", "<f2", 2), ("mode", "u1")])


@frozen
class ErrorBoundedCodec(Codec):
    """Error-bounded lossy codec for updates of successive rounds.

    Each float32 tensor is predicted from its reconstructions in earlier rounds, the
    residual quantised with step ``2 bound`` (rounded to nearest), and the indices
    entropy-coded in contexts of separable channel scales and last round's magnitudes.
    Of the predictors (`predict.Mode`) the one with the shortest encoding is taken per
    tensor. Encoder and decoder remember the last reconstruction (float32) and averages
    of reconstructions and magnitudes (16 bits each), advanced once a frame from decoded
    values.

    ``|x - xhat| <= bound`` holds for every element as returned, float32 rounding
    included.

    Parameters
    ----------
    rel : float
        Bound as a fraction of each tensor's range, ``max(x) - min(x)``; in ``(0, 1)``.
    abs_bound : float
        Bound in units of the update; used instead of `rel` if not 0.
    exact_below : int
        Smaller tensors, and those that are not float32, are sent exactly.
    predictor : {"auto", "none", "signed", "paper", "paper_kernels", "all"}
        Which predictors a tensor may have. ``"auto"``: ours. ``"none"``: none.
        ``"signed"``: a multiple of the last reconstruction and of its average, alone.
        ``"paper"``: the paper's, for every tensor with kernels, whatever it costs;
        ``"paper_kernels"``: without its oscillation of signs, as its code has it.
        ``"all"``: ours and the paper's. The last three remember 12 bytes an element.
    compact : bool
        Whether indices are coded in a compact block, with fewer bytes beside them;
        releases before it do not read it.
    rank : int
        The most outer products that a matrix or convolution is also predicted by
        (`outer_products.Products`), from 0 to 32; as many are sent as save bytes.

    References
    ----------
    Ye et al. (2025), arXiv:2511.05770, for prediction across rounds; its error bound
    is that of SZ3's REL mode, Liang et al. (2022), arXiv:2111.02925.
    """

    rel: float = 1e-2
    abs_bound: float = 0.0
    exact_below: int = 1024
    predictor: str = AUTO
    compact: bool = False
    rank: int = 0

    id: ClassVar[str] = "error_bounded"
    later: ClassVar[frozenset[str]] = frozenset({"predictor", "compact", "rank"})

    def __post_init__(self) -> None:
        check_predictor(self.predictor)
        if not 0 < self.rel < 1:
            raise CodecError(f"error_bounded: rel must be in (0, 1), not {self.rel}")
        if not 0 <= self.abs_bound < float("inf"):
            raise CodecError(
                f"error_bounded: abs_bound must be 0 or more, not {self.abs_bound}"
            )
        if not 0 <= self.rank <= MAX_RANK:
            raise CodecError(
                f"error_bounded: rank must be 0 to {MAX_RANK}, not {self.rank}"
            )

    def error_bound(self, arrays: Arrays) -> Mapping[str, Array]:
        """Return each tensor's bound, 0 for those sent exactly; see `Codec`."""
        _, lossy = _split(Layout.of(arrays), self.exact_below)
        bounds = dict.fromkeys(arrays, 0.0)
        bounds |= {spec.name: self._bound(arrays[spec.name]) for spec in lossy}
        return {name: np.array(bound) for name, bound in bounds.items()}

    def memory_nbytes(self, layout: Layout) -> int:
        """Return the bytes that either side remembers of a device.

        Eight an element of the tensors that are coded lossily, or twelve with the
        paper's predictors, and two a scale: one a tensor, output channel, input channel
        and position.
        """
        _, lossy = _split(update_layout(layout), self.exact_below)
        scales = sum(count_scales(as_channels(spec.shape)) for spec in lossy)
        each = 12 if needs_scores(self.predictor) else 8
        return each * sum(spec.size for spec in lossy) + 2 * scales

    def _bound(self, x: Array) -> float:
        return self.abs_bound or self.rel * (float(x.max()) - float(x.min()))

    def _encode(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array]]:
        return self._encode_some(arrays, layout, state, only=())[:2]

    def _encode_decoded(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array], dict[str, Array]]:
        return self._encode_some(arrays, layout, state, only=arrays.keys())

    def _encode_some(
        self,
        arrays: Arrays,
        layout: Layout,
        state: CodecState | None,
        *,
        only: Collection[str],
    ) -> tuple[Sequence[Section], Mapping[str, Array], dict[str, Array]]:
        """Encode; the decoded tensors are those of the memory after it, not to write.

        The rest of that memory is made of what was sent when it is read, as a device
        drops it.
        """
        exact, lossy = _split(layout, self.exact_below)
        sections = pack_exact(arrays, exact)
        decoded = {
            s.name: np.array(arrays[s.name], to_dtype(s.dtype))
            for s in exact
            if s.name in only
        }
        if not lossy:
            return sections, {}, decoded
        total = sum(spec.size for spec in lossy)
        table = np.zeros(len(lossy), _TENSOR)
        indices: Array = np.empty(total, np.int16)
        coded: list[Coded] = []
        about: list[Statistics] = []
        for i, (spec, part) in enumerate(zip(lossy, slices(lossy), strict=True)):
            x = np.ascontiguousarray(arrays[spec.name], np.float32)
            x = x.reshape(as_channels(spec.shape))
            bound = self._bound(x)
            history = _history(state, spec)
            own = tensor.encode(x, history, bound, self.predictor, self.rank)
            if own.indices.dtype != indices.dtype:
                indices = indices.astype(np.int32, copy=False)
            indices[part] = own.indices.reshape(-1)
            table[i] = own.step, own.gains, own.mode
            if needs_scores(self.predictor):
                about.append(statistics(own.reconstruction))
            if spec.name in only:
                decoded[spec.name] = _unchanging(own.reconstruction, spec)
            coded.append(own.without_arrays())
            del own
        sections.append(Section("TENS", table.tobytes(), itemsize=1))
        packed, scales = pack_indices(
            indices,
            lossy,
            table["step"],
            np.concatenate([own.scales for own in coded]),
            state,
            is_compact=self.compact,
        )
        sections += packed
        sections += pack_products([own.products for own in coded])
        sections += _side_sections(coded, total)
        if about:
            stats = np.array(about, "<f4").tobytes()
            sections.append(Section("STAT", stats, itemsize=4))

        def remember() -> dict[str, Array]:
            memory: dict[str, Array] = {"scales": scales}
            for i, (spec, part) in enumerate(zip(lossy, slices(lossy), strict=True)):
                shape, history = as_channels(spec.shape), _history(state, spec)
                if spec.name in decoded:
                    x = decoded[spec.name].reshape(shape)
                else:
                    x = tensor.rebuild(coded[i], indices[part].reshape(shape), history)
                seen = about[i] if about else None
                after = tensor.remember(x, coded[i].step, history, seen)
                _keep(memory, spec, after)
            return memory

        told = {s.name: decoded[s.name] for s in layout.tensors if s.name in decoded}
        return sections, Deferred(remember, self.memory_nbytes(layout)), told

    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        exact, lossy = _split(layout, self.exact_below)
        arrays = unpack_exact(reader, exact)
        if not lossy:
            return in_layout_order(layout, arrays), {}
        total = sum(spec.size for spec in lossy)
        table = _read_table(reader, len(lossy), state, MODES[self.predictor])
        indices, scales = unpack_indices(
            reader, lossy, table["step"], state, is_compact=self.compact
        )
        positions, values = _read_raw_elements(reader, total)
        signs = _read_signs(reader, lossy, table)
        whole = _read_raw_tensors(reader, lossy, table)
        products = read_products(reader, lossy, self.rank)
        about = self._read_statistics(reader, len(lossy))
        decoded: list[Vector] = []
        start = 0
        for spec, row, told in zip(lossy, table, products, strict=True):
            shape, history = as_channels(spec.shape), _history(state, spec)
            mode = Mode(int(row["mode"]))
            if mode is Mode.RAW:
                x = whole[spec.name].reshape(shape)
            else:
                part = indices[start : start + spec.size].reshape(shape)
                step = np.float32(row["step"])
                gains = np.float32(row["gains"][0]), np.float32(row["gains"][1])
                with np.errstate(over="ignore", invalid="ignore"):
                    own = signs.get(spec.name)
                    x = tensor.decode(part, step, mode, gains, history, own, told)
                inside = slice(*np.searchsorted(positions, (start, start + spec.size)))
                x.reshape(-1)[positions[inside] - start] = values[inside]
            start += spec.size
            decoded.append(x)
            arrays[spec.name] = _unchanging(x, spec)

        def remember() -> dict[str, Array]:
            memory: dict[str, Array] = {"scales": scales}
            for i, spec in enumerate(lossy):
                step, seen = np.float32(table[i]["step"]), about[i] if about else None
                history = _history(state, spec)
                _keep(memory, spec, tensor.remember(decoded[i], step, history, seen))
            return memory

        memory = Deferred(remember, self.memory_nbytes(layout))
        return in_layout_order(layout, arrays), memory

    def _read_statistics(self, reader: FrameReader, count: int) -> list[Statistics]:
        if not needs_scores(self.predictor):
            return []
        found = np.frombuffer(reader.section("STAT", size=8 * count), "<f4")
        if not (np.isfinite(found).all() and (found >= 0).all()):
            raise CodecError("a tensor has malformed statistics")
        return [(mean, deviation) for mean, deviation in found.reshape(-1, 2)]


def _split(
    layout: Layout, exact_below: int
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    exact: list[TensorSpec] = []
    lossy: list[TensorSpec] = []
    for spec in layout.tensors:
        big = spec.size >= max(exact_below, 1)
        (lossy if big and spec.dtype == "float32" else exact).append(spec)
    return exact, lossy


def _unchanging(x: Vector, spec: TensorSpec) -> Array:
    """Return a tensor in its own shape that nobody can write to."""
    view = x.reshape(spec.shape).view()
    view.flags.writeable = False
    return view


def _history(state: CodecState | None, spec: TensorSpec) -> History | None:
    if state is None:
        return None
    shape = as_channels(spec.shape)
    memory = state.arrays
    scores = memory.get(f"scores/{spec.name}")
    return History(
        memory[f"previous/{spec.name}"].reshape(shape),
        memory[f"average/{spec.name}"].reshape(shape),
        memory[f"magnitude/{spec.name}"].reshape(shape),
        None if scores is None else scores.reshape(shape),
    )


def _keep(memory: dict[str, Array], spec: TensorSpec, history: History) -> None:
    memory[f"previous/{spec.name}"] = history.previous.reshape(spec.shape)
    memory[f"average/{spec.name}"] = history.average.reshape(spec.shape)
    memory[f"magnitude/{spec.name}"] = history.magnitude.reshape(spec.shape)
    if history.scores is not None:
        memory[f"scores/{spec.name}"] = history.scores.reshape(spec.shape)


def _side_sections(coded: list[Coded], total: int) -> list[Section]:
    """Return what few frames have: kernel signs, raw elements, raw tensors."""
    sections = []
    signs = [own.signs for own in coded if own.signs is not None]
    if signs:
        together = np.concatenate(signs)
        one = np.zeros(len(together), np.uint8)
        sections.append(Section("SIGN", encode_integers(together, one, 1), itemsize=1))
    starts = np.cumsum([0] + [own.size for own in coded])
    raw = [own.positions + start for own, start in zip(coded, starts, strict=False)]
    positions = np.concatenate(raw)
    if len(positions):
        values = np.concatenate([own.values for own in coded]).astype("<f4")
        sections.append(Section("RPOS", encode_positions(positions, total)))
        sections.append(Section("RVAL", values.tobytes()))
    whole = [own.whole.astype("<f4").tobytes() for own in coded if own.whole.size]
    if whole:
        sections.append(Section("RAW", b"".join(whole), itemsize=4))
    return sections


def _read_table(
    reader: FrameReader,
    count: int,
    state: CodecState | None,
    modes: tuple[Mode, ...],
) -> Array:
    data = reader.section("TENS", size=count * _TENSOR.itemsize)
    table = np.frombuffer(data, _TENSOR)
    if not np.isin(table["mode"], [int(m) for m in (*modes, Mode.RAW)]).all():
        raise CodecError("a tensor has an unknown mode")
    if not (np.isfinite(table["step"]).all() and (table["step"] > 0).all()):
        raise CodecError("a tensor has a malformed step")
    predicted = ~np.isin(table["mode"], [Mode.NONE, Mode.RAW])
    if predicted.any() and state is None:
        raise CodecError("a tensor is predicted from a state that the frame lacks")
    published = np.isin(table["mode"], [Mode.PAPER_KERNELS, Mode.PAPER_OSCILLATION])
    remembered = state.arrays if state else {}
    if published.any() and not any(name.startswith("scores/") for name in remembered):
        raise CodecError("a tensor is predicted from scores that are not remembered")
    return table


def _read_raw_elements(reader: FrameReader, total: int) -> tuple[Array, Array]:
    if "RPOS" not in reader:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    positions = read_positions(reader, "RPOS", total)
    values = reader.section("RVAL", size=4 * len(positions))
    return positions, np.frombuffer(values, "<f4")


def _read_signs(
    reader: FrameReader, lossy: list[TensorSpec], table: Array
) -> dict[str, Integers]:
    kernels = {
        spec.name: as_channels(spec.shape)[0] * as_channels(spec.shape)[1]
        for spec, mode in zip(lossy, table["mode"], strict=True)
        if mode in (Mode.KERNEL_SIGNS, Mode.PAPER_KERNELS)
    }
    if not kernels:
        return {}
    total = sum(kernels.values())
    data = reader.section("SIGN", max_size=max_packed(total))
    signs = decode_integers(data, np.zeros(total, np.uint8), 1)
    if int(np.abs(signs).max()) > 1:
        raise CodecError("a kernel has a malformed sign")
    parts = np.split(signs, np.cumsum(list(kernels.values()))[:-1])
    return dict(zip(kernels, parts, strict=True))


def _read_raw_tensors(
    reader: FrameReader, lossy: list[TensorSpec], table: Array
) -> dict[str, Vector]:
    specs = [s for s, m in zip(lossy, table["mode"], strict=True) if m == Mode.RAW]
    total = sum(spec.size for spec in specs)
    if not total:
        return {}
    flat = np.frombuffer(reader.section("RAW", size=4 * total), "<f4")
    parts = np.split(flat.astype(np.float32), np.cumsum([s.size for s in specs])[:-1])
    return {spec.name: part for spec, part in zip(specs, parts, strict=True)}
