"""What a type checker says of the public interface; mypy reads this, nobody runs it.

`assert_type` says what an expression is. A line with ``type: ignore`` has to be an
error: under --strict mypy complains of an ignore that nothing needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, assert_type

import numpy as np
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy

from flwr_caesar.clients import CompressionMod, compression_mod
from flwr_caesar.codec import (
    Array,
    Codec,
    CodecState,
    ErrorFeedback,
    FrameInfo,
    FrameReader,
    Layout,
    LossyCodec,
    Section,
    TensorSpec,
    Vector,
    apply,
    difference,
    get_codec,
    inspect_frame,
    list_codecs,
)
from flwr_caesar.methods import MethodSpec, Settings, get_method
from flwr_caesar.records import DeviceRecord, RoundRecord
from flwr_caesar.strategies import (
    Caesar,
    CompressedStrategy,
    CorrelationAware,
    ErrorBounded,
    FedComLoc,
    Guard,
    MagnitudePruning,
    ServerMethod,
    TopK,
    Uncompressed,
)
from flwr_caesar.testing import check_codec, check_method

MODEL = {"w": np.zeros(3, np.float32)}


def codecs() -> None:
    codec = get_codec({"id": "topk", "density": 0.1})
    assert_type(codec, Codec)
    assert_type(get_codec("dense"), Codec)
    assert_type(list_codecs(), list[str])
    frame, sender = codec.encode(MODEL)
    assert_type(frame, bytes)
    assert_type(sender, CodecState)
    decoded, receiver = codec.decode(frame, sender, max_bytes=1 << 20)
    assert_type(decoded, dict[str, Array])
    assert_type(receiver, CodecState)
    assert_type(codec.config, dict[str, Any])
    assert_type(codec.error_bound(MODEL), Mapping[str, Array] | None)
    assert_type(inspect_frame(frame), FrameInfo)
    assert_type(ErrorFeedback(codec).encode(MODEL), tuple[bytes, CodecState])
    assert_type(difference(MODEL, decoded), dict[str, Array])
    assert_type(apply(MODEL, decoded), dict[str, Array])
    assert_type(Layout.of(MODEL), Layout)
    codec.encode(MODEL, sender, True)  # type: ignore[call-arg]
    codec.encode([1.0])  # type: ignore[arg-type]
    get_codec(0.1)  # type: ignore[arg-type]
    Codec()  # type: ignore[abstract]


@dataclass(frozen=True)
class Own(LossyCodec):
    exact_below: int = 1024

    id: ClassVar[str] = "own"

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array]]:
        return [Section("VAL", vector.tobytes(), itemsize=4)], {}

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> tuple[Vector, Mapping[str, Array]]:
        size = 4 * sum(spec.size for spec in lossy)
        assert_type(reader.section("VAL", size=size), bytes)
        return np.frombuffer(reader.section("VAL", size=size), np.float32), {}


def codec_authors() -> None:
    check_codec(Own(exact_below=3))
    check_codec("topk")  # type: ignore[arg-type]
    Own().exact_below = 3  # type: ignore[misc]


def strategies(records: list[RoundRecord]) -> None:
    strategy = TopK(
        FedAvg(fraction_evaluate=0.0),
        density=0.01,
        quorum=0.9,
        deadline=60.0,
        checkpoint="state",
        guards=Guard(max_share=0.5),
        on_record=records.append,
    )
    as_flower_sees_it: Strategy = strategy
    assert_type(as_flower_sees_it.summary(), None)
    assert_type(strategy.history, list[RoundRecord])
    assert_type(strategy.history[0].devices, tuple[DeviceRecord, ...])
    assert_type(strategy.history[0].bytes_up, int)
    CompressedStrategy(FedAvg(), ServerMethod())
    Caesar(FedAvg(), codec="paper", local_steps=20, quorum=0.9)
    ErrorBounded(FedAvg(), rel=0.01)
    CorrelationAware(FedAvg(), density=0.01)
    FedComLoc(FedAvg(), lr=0.1)
    MagnitudePruning(FedAvg())
    Uncompressed(FedAvg(), checkpoint="state")
    TopK()  # type: ignore[call-arg]
    TopK(FedAvg(), 0.01)  # type: ignore[call-arg]
    TopK(FedAvg(), densty=0.01)  # type: ignore[call-arg]
    TopK(FedAvg(), quorum="most")  # type: ignore[arg-type]
    TopK(TopK)  # type: ignore[arg-type]


def labels(context: Context) -> list[int]:
    return [1, 2]


def devices() -> None:
    ClientApp(mods=[compression_mod])
    assert_type(compression_mod, CompressionMod)
    CompressionMod(labels=labels)
    CompressionMod(labels=[1, 2])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Asked(Settings):
    power: int = 2


def methods() -> None:
    assert_type(Asked.of({"power": 1}), Asked)
    assert_type(Asked().to_dict(), dict[str, bool | int | float | str])
    assert_type(get_method("topk"), MethodSpec)
    MethodSpec(strategy="mine.server:Mine", device="mine.device:Half")
    MethodSpec(strategy=TopK)  # type: ignore[arg-type]
    check_method(TopK, seed=4, density=0.3)
    check_method(TopK, seed="four")  # type: ignore[arg-type]
