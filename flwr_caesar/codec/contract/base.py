"""The codec contract: pure functions between arrays and frames."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, ClassVar

import numpy as np

from .as_they_are import pack_as_they_are, unpack_as_they_are
from .errors import CodecError, StateMismatchError
from .frame import (
    AS_THEY_ARE,
    RAISED,
    FrameReader,
    Section,
    same_config,
    write_frame,
)
from .layout import Array, Arrays, Layout, to_dtype
from .non_finite import is_finite, require_finite
from .raised import mark_raised, raise_to, unpack_raised
from .state import NO_DIGEST, CodecState

TABLE_TAG = "TABL"
MAX_TABLE_BYTES = 1 << 24
DEFAULT_MAX_BYTES = 1 << 33


class Codec(ABC):
    """A lossy or lossless map between named arrays and a frame.

    A codec is a frozen dataclass whose fields are its identity: two codecs with equal
    `config` write bit-compatible frames. Encoding and decoding are pure: state goes in
    and comes out, and no caller's array is changed.

    Subclasses set `id`, and implement `_encode` and `_decode`; framing, the tensor
    table, state checks and finiteness checks are done here. One that sets
    `reads_private` is handed `CodecState.private` when it decodes a frame that
    continues from no state, where others are handed `None`. Parameters named in
    `later` were added after the codec's first frames; a default leaves them out of
    `config`, so that those frames still decode.
    """

    id: ClassVar[str]
    reads_private: ClassVar[bool] = False
    later: ClassVar[frozenset[str]] = frozenset()

    @property
    def config(self) -> dict[str, Any]:
        """Id and parameters, JSON-serialisable; the codec's identity."""
        defaults = {f.name: f.default for f in fields(self)}  # type: ignore[arg-type]
        own = {
            name: value
            for name, value in self.parameters.items()
            if name not in self.later or value != defaults[name]
        }
        return {"id": self.id, **own}

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters, those that `config` leaves out, too."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Return the id and what is not at its default, as `codec bench` takes it."""
        defaults = {f.name: f.default for f in fields(self)}  # type: ignore[arg-type]
        own = [
            f"{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in self.parameters.items()
            if value != defaults[name]
        ]
        return " ".join([self.id, *own])

    @abstractmethod
    def _encode(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array]]:
        """Return the content sections and the shared memory after this frame."""

    @abstractmethod
    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        """Return the arrays and the shared memory after this frame."""

    def _encode_decoded(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array], dict[str, Array] | None]:
        """Return what `_encode` does, and what `_decode` will make of it.

        `None` if that takes decoding the frame. A codec that knows it from encoding
        overrides this.
        """
        return *self._encode(arrays, layout, state), None

    def _encode_some(
        self,
        arrays: Arrays,
        layout: Layout,
        state: CodecState | None,
        *,
        only: Collection[str],
    ) -> tuple[Sequence[Section], Mapping[str, Array], dict[str, Array] | None]:
        """Return what `_encode_decoded` does, of some tensors at the least.

        A codec that holds less memory then overrides this.
        """
        return self._encode_decoded(arrays, layout, state)

    def _beyond(self, arrays: Arrays) -> frozenset[str]:
        """Return which finite tensors the codec has no number for.

        These are sent as they are; the codec sees zeros. By default those of float64
        beyond the range of float32, in which all lossy codecs compute.
        """
        largest = np.finfo(np.float32).max
        return frozenset(
            name
            for name, array in arrays.items()
            if array.dtype.name == "float64"
            and not bool((np.abs(array) <= largest).all())
        )

    def error_bound(self, arrays: Arrays) -> Mapping[str, Array] | None:
        """Return the largest error promised for each element, if the codec has one.

        Returns
        -------
        mapping of str to ndarray, optional
            For each tensor of `arrays` a bound on ``|x - decoded|`` that broadcasts to
            its shape; `None` if the codec promises none.
        """
        return None

    def encode(
        self,
        arrays: Arrays,
        state: CodecState | None = None,
        *,
        finite: bool = True,
    ) -> tuple[bytes, CodecState]:
        """Encode named arrays into one frame.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            Tensors of any shape and of a dtype in `layout.DTYPE_CODES`.
        state : CodecState, optional
            What the previous call returned, or ``CodecState(layout)`` for a decoder
            that knows the tensors. With `None`, or when the layout changes, the frame
            carries the tensor table and is decodable from nothing.
        finite : bool
            Whether to refuse NaN and infinity. A model may hold them, such as a mask
            of minus infinity; its tensors that do are then sent as they are.

        Returns
        -------
        tuple of bytes and CodecState
            The frame, and the state to pass to the next call.

        Raises
        ------
        CodecError
            If a dtype is not supported, or an element is NaN or infinite.
        """
        frame, after, _ = self._frame(arrays, state, self._encode, finite=finite)
        return frame, after

    def encode_decoded(
        self,
        arrays: Arrays,
        state: CodecState | None = None,
        *,
        finite: bool = True,
        base: Arrays | None = None,
        nonnegative: Collection[str] = (),
        only: Collection[str] | None = None,
    ) -> tuple[bytes, dict[str, Array], CodecState]:
        """Encode, and tell what a decoder makes of the frame.

        For a sender that needs to know what it left out. Equal to `encode` and then
        `decode` of the frame, without decoding where the codec knows the outcome.

        Parameters
        ----------
        arrays, state, finite
            See `encode`.
        base : mapping of str to ndarray, optional
            The model of which `arrays` are an update.
        nonnegative : collection of str
            Tensors of which the sum of base and update has no negative element, such as
            variances. Where the codec's error would give it one, the frame says so, and
            `decode` raises it to 0.
        only : collection of str, optional
            The tensors to tell of, so that a codec need not hold the others; by default
            all. It may tell of more.

        Returns
        -------
        tuple of bytes, dict and CodecState
            The frame, the decoded arrays, and the state to pass to the next call.

        Raises
        ------
        CodecError
            As `encode` does, or if the decoded arrays would hold NaN or infinity.
        """
        encode: Callable[..., tuple[Any, ...]] = self._encode_decoded
        if only is not None:
            encode = partial(self._encode_some, only=only)
        made = self._frame(arrays, state, encode, finite=finite)
        frame, after, (decoded,) = made
        if decoded is None:
            known = state is not None and state.layout.digest == after.layout.digest
            held = state if known else CodecState(after.layout)
            decoded, _ = self.decode(frame, held, finite=finite)
        elif finite:
            require_finite(decoded)
        if base is not None and nonnegative:
            frame, raised = mark_raised(frame, after.layout, decoded, base, nonnegative)
            decoded |= raised
        return frame, decoded, after

    def _frame(
        self,
        arrays: Arrays,
        state: CodecState | None,
        encode: Callable[..., tuple[Any, ...]],
        *,
        finite: bool,
    ) -> tuple[bytes, CodecState, tuple[Any, ...]]:
        """Return the frame of an `_encode`, the state after it, and the rest of it."""
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        layout = Layout.of(arrays)
        odd: frozenset[str] = frozenset()
        if finite:
            require_finite(arrays)
        else:
            odd = frozenset(n for n, array in arrays.items() if not is_finite(array))
        whole = odd | self._beyond({n: a for n, a in arrays.items() if n not in odd})
        coded = {n: np.zeros_like(a) if n in whole else a for n, a in arrays.items()}
        known = state is not None and state.layout.digest == layout.digest
        previous = state if known else None
        remembered = previous if previous and previous.arrays else None
        sections, memory, *rest = encode(coded, layout, remembered)
        table = [] if known else [Section(TABLE_TAG, layout.to_bytes(), itemsize=1)]
        frame = write_frame(
            config=self.config,
            layout_digest=layout.digest,
            sections=[
                *table,
                *sections,
                *pack_as_they_are(arrays, layout.tensors, whole),
            ],
            state_version=previous.version if previous else 0,
            state_digest=previous.digest if previous else NO_DIGEST,
            flags=AS_THEY_ARE if whole else 0,
        )
        if rest and rest[0] is not None:
            rest[0] |= {
                spec.name: np.array(arrays[spec.name], to_dtype(spec.dtype))
                for spec in layout.tensors
                if spec.name in whole
            }
        return frame, _advance(layout, previous, memory), tuple(rest)

    def decode(
        self,
        frame: bytes,
        state: CodecState | None = None,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        finite: bool = True,
        base: Arrays | None = None,
        raised: bool = True,
        shared: bool = False,
    ) -> tuple[dict[str, Array], CodecState]:
        """Decode one frame.

        Parameters
        ----------
        frame : bytes
            A frame of a codec with this `config`.
        state : CodecState, optional
            What the previous call returned, or ``CodecState(layout)`` to state the
            tensors that are expected. With `None` the frame's own table is believed,
            up to `max_bytes`.
        max_bytes : int
            Most bytes of decoded arrays to accept from a frame's own table.
        finite : bool
            Whether to refuse NaN and infinity; see `encode`.
        base : mapping of str to ndarray, optional
            The model of which the frame holds an update; see `encode_decoded`.
        raised : bool
            Whether to raise what `base` needs raised. A sender that asks what of its
            update the frame holds does not.
        shared : bool
            Whether the arrays may be those that the new state remembers, and cannot be
            written to then: a model less in memory.

        Returns
        -------
        tuple of dict and CodecState
            The arrays, and the state to pass to the next call.

        Raises
        ------
        StateMismatchError
            If the frame needs a state or tensor table the decoder does not have.
        CodecError
            If the frame is malformed, of another codec, or holds NaN or infinity.
        """
        reader = FrameReader(frame)
        info = reader.info
        if not same_config(info.config, self.config):
            raise CodecError(
                f"frame of codec {info.config!s:.200}, expected {self.config}"
            )
        layout = read_layout(reader, state.layout if state else None, max_bytes)
        previous = _require_state(reader, layout, state)
        known = previous
        if known is None and state is not None and self.reads_private:
            known = CodecState(layout, private=state.private)
        arrays, memory = self._decode(reader, layout, known)
        if info.flags & AS_THEY_ARE:
            arrays |= unpack_as_they_are(reader, layout.tensors)
        if finite:
            require_finite(arrays)
        if memory and not shared:
            for name, array in arrays.items():
                if not array.flags.writeable:
                    arrays[name] = array.copy()
        if raised and info.flags & RAISED:
            if base is None:
                raise CodecError("frame is the update of a model that is not at hand")
            names = unpack_raised(reader, layout)
            arrays |= raise_to(arrays, base, names)
        return arrays, _advance(layout, previous, memory)


def _advance(
    layout: Layout,
    previous: CodecState | None,
    memory: Mapping[str, Array],
) -> CodecState:
    version = (previous.version if previous else 0) + 1 if memory else 0
    return CodecState(layout, version, memory)


def read_layout(reader: FrameReader, expected: Layout | None, max_bytes: int) -> Layout:
    """Return the layout of a frame, from its own table or as expected.

    Parameters
    ----------
    reader : FrameReader
        The frame.
    expected : Layout, optional
        Tensors that the frame must hold, by name and shape. With `None` its own table
        is believed.
    max_bytes : int
        Most bytes of tensors to believe a table.

    Raises
    ------
    StateMismatchError
        If the frame has no table, and is not of the expected layout.
    CodecError
        If its table is malformed, unexpected or too large.
    """
    if TABLE_TAG not in reader:
        if expected is None or expected.digest != reader.info.layout_digest:
            raise StateMismatchError(
                "frame names a tensor table by digest that this side has not seen"
            )
        return expected
    if expected is None:
        table = reader.section(TABLE_TAG, max_size=MAX_TABLE_BYTES)
    else:
        table = reader.section(TABLE_TAG, size=len(expected.to_bytes()))
    layout = Layout.from_bytes(table)
    if layout.digest != reader.info.layout_digest:
        raise CodecError("frame's tensor table differs from its digest")
    if expected is not None and not layout.same_shapes(expected):
        raise CodecError("frame's tensors differ from the expected names or shapes")
    if expected is None and layout.nbytes > max_bytes:
        raise CodecError(f"frame claims {layout.nbytes} bytes of tensors")
    return layout


def _require_state(
    reader: FrameReader, layout: Layout, state: CodecState | None
) -> CodecState | None:
    info = reader.info
    if info.state_digest == NO_DIGEST and info.state_version == 0:
        return None
    if (
        state is None
        or state.layout.digest != layout.digest
        or (state.version, state.digest) != (info.state_version, info.state_digest)
    ):
        raise StateMismatchError(
            f"frame continues from codec state {info.state_version} "
            f"({info.state_digest.hex()}), which this side does not hold"
        )
    return state
