"""Our own codecs pass the suite that third parties run, and it can fail."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from flwr_caesar.codec import Codec, CodecState, Layout, get_codec
from flwr_caesar.codec.codecs.dense import DenseCodec
from flwr_caesar.codec.conformance.suite import check_codec, sample_arrays
from flwr_caesar.codec.contract import registry
from flwr_caesar.codec.contract.frame import FrameReader, Section
from flwr_caesar.codec.contract.layout import Array, Arrays

from ..contract.test_base import Delta
from ..entry_points import install
from ..samples import CONFIGS


def test_every_codec_has_a_sample() -> None:
    assert {config["id"] for config in CONFIGS} == registry._OURS.keys()


@pytest.mark.parametrize("config", CONFIGS, ids=json.dumps)
def test_our_codecs_conform(config: dict[str, Any]) -> None:
    check_codec(get_codec(config), frames=300)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = (Delta, ReadOnly, Forgetful, Random, Inexact)
    install(
        monkeypatch, **{cls.id: f"{cls.__module__}:{cls.__name__}" for cls in theirs}
    )


def test_a_codec_with_memory_conforms() -> None:
    check_codec(Delta(), frames=300)


@dataclass(frozen=True)
class ReadOnly(DenseCodec):
    id: ClassVar[str] = "test-read-only"

    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        arrays, memory = super()._decode(reader, layout, state)
        for array in arrays.values():
            array.setflags(write=False)
        return arrays, memory


@dataclass(frozen=True)
class Forgetful(Delta):
    id: ClassVar[str] = "test-forgetful"

    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        arrays, memory = super()._decode(reader, layout, state)
        return arrays, {"last": memory["last"] * 0}


@dataclass(frozen=True)
class Random(DenseCodec):
    id: ClassVar[str] = "test-random"

    def _encode(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array]]:
        sections, memory = super()._encode(arrays, layout, state)
        noise = np.random.default_rng().bytes(8)
        return [*sections, Section("RND", noise)], memory


@dataclass(frozen=True)
class Inexact(DenseCodec):
    id: ClassVar[str] = "test-inexact"

    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        arrays, memory = super()._decode(reader, layout, state)
        for spec in layout.tensors:
            if spec.dtype == "int32":
                arrays[spec.name] += 1
        return arrays, memory


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        (ReadOnly(), "read-only"),
        (Forgetful(), "memories differ"),
        (Random(), "same frame"),
        (Inexact(), "bit-exact"),
    ],
    ids=lambda value: getattr(value, "id", ""),
)
def test_a_codec_that_breaks_a_rule_is_caught(codec: Codec, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_codec(codec, frames=10)


def test_the_sample_has_every_dtype_and_awkward_shapes() -> None:
    arrays = sample_arrays(np.random.default_rng(0))
    assert len({array.dtype.name for array in arrays.values()}) == 13
    assert {(), (0,), (3, 0, 2)} <= {array.shape for array in arrays.values()}
