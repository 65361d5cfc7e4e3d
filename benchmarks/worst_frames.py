"""The slowest frames that we know how to make, of any codec and layout.

An encoder whose choices are replaced makes frames that its decoder takes, or refuses
only after the work: as few lanes as the format allows or as many, tables of all symbols
for all contexts, integers of every magnitude, blocks in the form that does not suit
them. What no encoder writes is put together by hand: as many sections as a frame may
have, a configuration as long as it may be, tensors that are sent twice.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np

from flwr_caesar.codec.codecs import correlation, error_bounded
from flwr_caesar.codec.coding import (
    block_tensors,
    compact_block,
    compact_tables,
    contexts,
    integers,
    lattice_block,
    rans,
    small_block,
    tables,
)
from flwr_caesar.codec.coding.class_counts import ClassCounts
from flwr_caesar.codec.coding.compact_symbols import ALPHABET
from flwr_caesar.codec.coding.compact_tables import CompactTables
from flwr_caesar.codec.coding.contexts import CLASSES, ContextMap
from flwr_caesar.codec.coding.counts import entropy_bits
from flwr_caesar.codec.coding.parametric import Parameters
from flwr_caesar.codec.coding.rans import MAX_ROWS, most_rows
from flwr_caesar.codec.conformance.mutate import Parts, seal
from flwr_caesar.codec.contract.as_they_are import pack_as_they_are
from flwr_caesar.codec.contract.frame import AS_THEY_ARE, add_section
from flwr_caesar.codec.contract.layout import Layout
from flwr_caesar.codec.predictors import bounded_indices
from flwr_caesar.codec.published import lattice_model
from flwr_caesar.codec.quantisers import lattice_sections

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Encode = Callable[[Arrays], bytes]

MOST_LANES = 0xFFFF
LANES = (1, 13, MOST_LANES)
VALUES = ("zeros", "all magnitudes")
_HISTORY_WIDTH = 85  # times 3, of at most 256 contexts
_USERS = (lattice_block, error_bounded, bounded_indices, correlation)
_RANK = 9
_LONGEST = -17  # 33 zeros and a one


def worst_frames(encode: Encode, arrays: Arrays) -> Iterator[tuple[str, bytes]]:
    """Yield hostile frames of a layout and what each is.

    Parameters
    ----------
    encode : callable
        Returns the frame of arrays, as the reader expects it.
    arrays : mapping of str to ndarray
        The good ones.
    """
    good = encode(arrays)
    yield from by_hand(good, arrays)
    yield "zeros", encode({name: np.zeros_like(x) for name, x in arrays.items()})
    yield "tiny numbers", encode({name: tiny(x) for name, x in arrays.items()})
    yield "low rank", encode({name: low_rank(x) for name, x in arrays.items()})
    seen = {good}
    for values in VALUES:
        for wide in (None, "all tables", "all parameters"):
            for lanes in LANES:
                for halves in (False, True):
                    with (
                        in_form(None),
                        coded_in(lanes, halves=halves),
                        replaced(values),
                        all_tables(parametric=wide == "all parameters")
                        if wide
                        else contextlib.nullcontext(),
                    ):
                        frame = encode(arrays)
                    if frame not in seen:
                        seen.add(frame)
                        name = f"{values}, {lanes} lanes"
                        name += " twice" * halves + (f", {wide}" if wide else "")
                        yield name, frame
    for bits in (0, 31):
        with in_form(bits):
            frame = encode(arrays)
        if frame not in seen:
            yield f"Rice of {bits} bits", frame


def by_hand(good: bytes, arrays: Arrays) -> Iterator[tuple[str, bytes]]:
    """Yield frames that no encoder writes."""
    parts = Parts.of(good)
    for i in range(0xFFFF - len(parts.entries)):
        tag = bytes(33 + i // 64**at % 64 for at in range(4))
        parts.entries.append([tag, 0, 0, 0, b""])
    yield "65,535 sections", seal(parts.join())
    deep = {"id": "dense", "a": json.loads("[" * 900 + "]" * 900)}
    keys = {"id": "dense"} | {str(i): i for i in range(5_900)}
    for name, config in (("deep", deep), ("long", keys)):
        parts = Parts.of(good)
        parts.config = json.dumps(config, separators=(",", ":")).encode()[:0xFFFF]
        yield f"a {name} configuration", seal(parts.join())
    specs = Layout.of(arrays).tensors
    (section,) = pack_as_they_are(arrays, specs, list(arrays))
    yield "all tensors twice", add_section(good, section, AS_THEY_ARE)


def tiny(x: Array) -> Array:
    """Return numbers so small that processors take longer for them."""
    if x.dtype.kind != "f":
        return x
    return np.full_like(x, np.finfo(x.dtype).smallest_subnormal * 5)


def low_rank(x: Array) -> Array:
    """Return a matrix of a few outer products, where there is one."""
    if x.ndim < 2 or x.dtype.kind != "f":
        return x
    rng = np.random.default_rng(1)
    rank = min(_RANK, len(x))
    left = rng.normal(size=(len(x), rank))
    right = rng.normal(size=(rank, x.size // len(x)))
    return (left @ right).reshape(x.shape).astype(x.dtype)


@contextlib.contextmanager
def coded_in(lanes: int, *, halves: bool) -> Iterator[None]:
    """Make symbols be coded in so many lanes, or the nearest number that may be."""

    def plan(n: int, bits: float) -> tuple[int, int, int]:
        parts = 1 + halves
        least = -(-n // (parts * MAX_ROWS))
        chosen = min(max(lanes, least), max(n // parts, 1), MOST_LANES)
        if not halves:
            return chosen, chosen, 0
        spare = chosen * min(most_rows(n) // 2, MAX_ROWS)
        if 2 * spare >= n:
            return chosen, chosen, n // 2
        # Not in so few lanes: as few in one part as leave the other its rows.
        few = max(-(-n // most_rows(n)), chosen)
        return few, few, n // 2

    with patch.object(rans, "_choose_lanes", plan):
        yield


@contextlib.contextmanager
def all_tables(*, parametric: bool = False) -> Iterator[None]:
    """Make every context have a table of all symbols, and the tensors use them all.

    Those of a compact block are told by parameters if it is `parametric`.
    """
    quantise = rans.quantise_counts

    def codes(counts: Array, alphabet: int = tables.MAX_ALPHABET) -> Array:
        known = quantise(counts)
        found = np.zeros((len(counts), alphabet), np.uint8)
        found[:, : known.shape[1]] = known
        free = np.flatnonzero(found.reshape(-1) == 0)
        spare = int(counts.sum()) - np.count_nonzero(known)  # as many as symbols
        found.reshape(-1)[free[:: max(-(-len(free) // max(spare, 1)), 1)]] = 1
        return found

    def plan(*args: Any) -> tuple[ContextMap, None]:
        history = args[2] is not None
        width = _HISTORY_WIDTH if history else CLASSES
        return ContextMap(0, 0, width, history), None

    def choose(counts: ClassCounts) -> CompactTables:
        every = counts.by_class
        most = CLASSES if len(every) == 1 else _HISTORY_WIDTH
        n, alphabet = int(every.sum()), every.shape[2]
        if parametric:
            most = max(min(most, n // (alphabet * len(every))), 1)
            alphabet = min(n // (most * len(every)), ALPHABET)
        merge = ContextMap(0, 0, most, len(every) > 1)
        last = every[:, most - 1 :].sum(axis=1, keepdims=True)
        merged = np.concatenate([every[:, : most - 1], last], axis=1)
        merged = merged.reshape(merge.size, -1)
        bits = entropy_bits(merged)
        if not parametric:
            chosen = codes(merged, ALPHABET)
            told = compact_tables.pack_compact_tables(chosen)
            return CompactTables(merge, chosen, bits, told, False)
        each = np.arange(merge.size, dtype=np.int32)
        own = Parameters(alphabet, 64, each * 37 % 129 - 64, each * 29 % 48)
        return CompactTables(merge, own.codes(), bits, own.to_bytes(most), True)

    def scales(sums: contexts.SliceSums, step: np.float32) -> Array:
        axes = [np.zeros(len(each), np.int16) for each in sums._axes.values()]
        if axes:
            longest = max(axes, key=len)
            longest[:] = np.arange(len(longest)) % CLASSES
        return np.concatenate([np.full(1, -32, np.int16), *axes])

    def coarse(sums: contexts.SliceSums, active: int) -> tuple[Array, list[int]]:
        return scales(sums, np.float32(1)), [1] * len(sums._axes)

    with (
        patch.object(rans, "quantise_counts", codes),
        patch.object(lattice_block, "choose_contexts", plan),
        patch.object(bounded_indices, "choose_contexts", plan),
        patch.object(CompactTables, "choose", choose),
        patch.object(contexts.SliceSums, "scales", scales),
        patch.object(contexts.SliceSums, "coarse_scales", coarse),
    ):
        yield


@contextlib.contextmanager
def replaced(values: str) -> Iterator[None]:
    """Make integers be written as others: zeros, or of all magnitudes there are."""
    with contextlib.ExitStack() as stack:
        for module in _USERS if values != "as they are" else ():
            stack.enter_context(
                patch.object(module, "encode_integers", _writer(values == "zeros"))
            )
        if values != "as they are":
            found = _symbols(block_tensors.to_compact, zeros=values == "zeros")
            stack.enter_context(patch.object(block_tensors, "to_compact", found))
        yield


def _writer(zeros: bool) -> Callable[[Array, Array, int], bytes]:
    def write(given: Array, own: Array, count: int, **known: Array) -> bytes:
        if count == lattice_block._KINDS:  # scales, of which the contexts are made
            return integers.encode_integers(given, own, count)
        return integers.encode_integers(_other(len(given), zeros=zeros), own, count)

    return write


def _symbols(
    to_compact: Callable[[Array], tuple[Array, Array]], *, zeros: bool
) -> Callable[[Array], tuple[Array, Array]]:
    return lambda given: to_compact(_other(len(given), zeros=zeros))


def _other(n: int, *, zeros: bool) -> Array:
    found = np.zeros(n, np.int32)
    return found if zeros else found + (2.0 ** (np.arange(n) % 31)).astype(np.int32)


@contextlib.contextmanager
def in_form(bits: int | None) -> Iterator[None]:
    """Make a `lattice` use the form of many integers, or that of few.

    In the latter with so many low bits each, as long as the reader takes it.
    """

    def forced(indices: Array, specs: Any) -> tuple[bool, bytes]:
        if bits is None:
            return False, lattice_block.encode_block(indices, specs)
        longest = np.full(len(indices), _LONGEST if bits == 0 else -1, np.int32)
        with patch.object(small_block, "best_rice", lambda u: (bits, 0)):
            return True, small_block.encode_small_block(longest, specs)

    def forced_compact(
        indices: Array, specs: Any, past: Any = None
    ) -> tuple[bool, bytes, list[Array]]:
        if bits is None:
            return False, *compact_block.encode_compact_block(indices, specs, past)
        return *forced(indices, specs), []

    with (
        patch.object(lattice_sections, "encode_shorter", forced),
        patch.object(lattice_model, "encode_shorter", forced),
        patch.object(lattice_sections, "encode_compact_shorter", forced_compact),
        patch.object(lattice_model, "encode_compact_shorter", forced_compact),
    ):
        yield
