"""What befalls a device and its messages, one thing in each conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from flwr_caesar.codec import get_codec
from flwr_caesar.codec.contract.layout import to_dtype
from flwr_caesar.strategies.lattice_downlink import LatticeDownlink
from flwr_caesar.strategies.method import ServerMethod
from flwr_caesar.strategies.phase import DevicePlan
from flwr_caesar.transport import (
    Plan,
    with_note,
)

from .record_conversations import Scenario, Talk, first_model

TOPK = {"id": "topk", "density": 0.25, "values": "float16", "exact_below": 12}
LATTICE = {
    "id": "lattice",
    "rate": 1.0,
    "step": 0.02,
    "nmse": 0.0,
    "exact_below": 0,
    "fine_below": 24,
}


def topk(**options: object) -> ServerMethod:
    return ServerMethod(upload=get_codec(TOPK), error_feedback=True, **options)


def caesar(**options: object) -> ServerMethod:
    return ServerMethod(
        downlink=LatticeDownlink(**options),
        upload=get_codec(LATTICE),
        error_feedback=True,
    )


def rounds(folder: Path) -> Talk:
    talk = Talk(
        "rounds",
        "A newcomer, acknowledged uploads, a model as a change and as a header alone.",
        caesar(),
        folder,
    )
    for _ in range(3):
        assert talk.round({1: "a"})[1].counts
    assert talk.round({1: "a"}, train=False)[1].counts
    assert talk.round({1: "a"})[1].counts
    talk.round({2: "b"})
    assert talk.round({1: "a", 2: "b"})[1].counts
    return talk


def lost(folder: Path) -> Talk:
    talk = Talk(
        "lost",
        "Replies that are lost, one and then two in a row, return to the residual.",
        topk(),
        folder,
    )
    talk.round({1: "a"})
    talk.round({1: "a"}, lose=(1,))
    talk.round({1: "a", 2: "b"})
    talk.round({1: "a", 2: "b"}, lose=(1,))
    talk.round({1: "a", 2: "b"}, lose=(1,))
    assert talk.round({1: "a"})[1].counts
    return talk


def twice(folder: Path) -> Talk:
    talk = Talk(
        "twice",
        "A request that comes again is answered with the same upload, metrics and "
        "labels; one of the same order with another model is stale.",
        topk(),
        folder,
    )
    talk.round({1: "a"})
    plans = {1: DevicePlan(get_codec(TOPK), ask_labels=True)}
    content = talk.server.ask([1], plans=plans)[1]
    extra = {
        "notes": ConfigRecord({"name": "a", "blob": b"\0\1\2", "sizes": [1, 2, 3]}),
        "other": ArrayRecord({"m": Array(np.arange(4, dtype=np.float64))}),
    }
    first = talk.ask("a", content, extra=extra, labels=[4, 0, 9])
    assert first is not None
    again = talk.ask("a", content, labels=[9, 9, 9])
    assert again is not None
    assert talk.server.hear(1, again).counts
    talk.ask("a", _other_target(content))
    talk.server.close()
    assert talk.round({1: "a"})[1].counts
    # What the server applied is settled: the same request is only old now.
    talk.ask("a", content)
    return talk


def _other_target(content: RecordDict) -> RecordDict:
    plan, header = Plan.read(content)
    number, digest = header.target
    other = replace(header, target=(number + 1, digest), base=None)
    return with_note(content, plan.note(other))


def stale(folder: Path) -> Talk:
    talk = Talk("stale", "Requests that are older than one answered.", topk(), folder)
    old = talk.server.ask([1])[1]
    talk.round({1: "a"})
    talk.ask("a", old)
    older = talk.server.ask([1], train=False)[1]
    talk.round({1: "a"})
    talk.ask("a", older, kind="evaluate")
    return talk


def stranger(folder: Path) -> Talk:
    talk = Talk(
        "stranger",
        "A device under new node ids, and at the node of another one: uploads wait "
        "until the server knows it, at most four.",
        topk(),
        folder,
    )
    for node in (1, 2, 3, 4):
        assert talk.round({node: "a"})[node].counts
    assert "waits" in talk.round({5: "a"})[5].reason
    assert talk.round({5: "a"})[5].counts
    talk.round({6: "b"})
    # Each at the other's node: the server means another device.
    assert talk.round({5: "b", 6: "a"})[6].counts
    talk.round({5: "b", 6: "a"})
    return talk


def declined(folder: Path) -> Talk:
    talk = Talk(
        "declined",
        "A device that does not want to train now, new and known, and telemetry of one "
        "that does.",
        topk(),
        folder,
    )
    hot = {"declines": "84 °C"}
    talk.round({1: "a"}, board=hot)
    cool = {
        "telemetry": {
            "source": "sysfs",
            "seconds": 4.5,
            "celsius-max": 51.25,
            "joules": 20.5,
            "bytes-written": 4096,
        }
    }
    talk.round({1: "a"}, board=cool)
    talk.round({1: "a"}, board=hot)
    talk.round({1: "a"}, train=False, board=hot)
    assert talk.round({1: "a"})[1].counts
    return talk


def forget(folder: Path) -> Talk:
    talk = Talk(
        "forget",
        "A residual that is given up: too old, and before an update that is clipped.",
        topk(),
        folder,
    )
    talk.round({1: "a", 2: "b"})
    talk.round({1: "a", 2: "b"}, lose=(1,))
    for _ in range(3):
        talk.round({2: "b"})
    talk.round({1: "a"}, max_residual_age=4)
    talk.round({1: "a"}, max_residual_age=4)
    for _ in range(3):
        talk.round({2: "b"})
    talk.round({1: "a"}, max_residual_age=3)
    talk.round({1: "a"}, max_residual_age=3)
    # A clipped update, and error feedback: refused.
    assert not talk.round({1: "a"}, config={"clipping_norm": 1.0})
    talk.server.method.error_feedback = False
    talk.round({1: "a"}, config={"clipping_norm": 1.0})
    talk.round({1: "a"}, config={"clipping_norm": 1.0}, lose=(1,))
    talk.round({1: "a"}, config={"clipping_norm": 1.0})
    return talk


def without_feedback(folder: Path) -> Talk:
    method = ServerMethod(upload=get_codec(TOPK))
    talk = Talk(
        "without-feedback",
        "Without error feedback what the codec leaves out is dropped, and what was "
        "lost on its way is sent again.",
        method,
        folder,
    )
    talk.round({1: "a"})
    talk.round({1: "a"}, lose=(1,))
    talk.round({1: "a"})
    talk.round({1: "a"})
    return talk


def evaluation(folder: Path) -> Talk:
    talk = Talk(
        "evaluation",
        "Evaluations: first contact, a change, a header alone, the same request twice, "
        "and a model that is only taken in.",
        caesar(),
        folder,
    )
    talk.round({1: "a"}, train=False)
    talk.round({1: "a"})
    talk.round({1: "a"}, train=False)
    talk.round({1: "a"}, train=False)
    content = talk.server.ask([1], train=False)[1]
    talk.ask("a", content, kind="evaluate")
    again = talk.ask("a", content, kind="evaluate")
    assert again is not None
    assert talk.server.hear(1, again).counts
    talk.server.close()
    talk.round({1: "a"})
    plans = {1: DevicePlan(get_codec(LATTICE), call_app=False)}
    talk.round({1: "a"}, train=False, plans=plans)
    talk.round({1: "a"})
    return talk


def _start(
    name: str,
    about: str,
    folder: Path,
    *,
    same: bool,
    dtypes: Mapping[str, str] = MappingProxyType({}),
    **options: object,
) -> Talk:
    model = first_model()
    for tensor, dtype in dtypes.items():
        model[tensor] = model[tensor].astype(to_dtype(dtype))
    initial = {tensor: array.copy() for tensor, array in model.items()}
    if not same:
        initial["fc.bias"][0] += np.float32(1)
    method = caesar(shared_start=True, **options)
    talk = Talk(name, about, method, folder, model=model, initial=initial)
    talk.round({1: "a"})
    talk.round({1: "a"})
    talk.round({1: "a", 2: "b"})
    talk.round({1: "a", 2: "b"})
    return talk


def shared_start(folder: Path) -> Talk:
    return _start(
        "shared-start",
        "Devices make the first model of their app's own arrays, and are sent none of "
        "it, or what changed since.",
        folder,
        same=True,
    )


def other_start(folder: Path) -> Talk:
    return _start(
        "other-start",
        "Devices whose app starts from other arrays say so: a whole model is sent.",
        folder,
        same=False,
    )


def coarse_start(folder: Path) -> Talk:
    return _start(
        "coarse-start",
        "A shared start with a step as large as a tensor's scale.",
        folder,
        same=True,
        first_bits=0,
        exact_below=10,
    )


def half_start(folder: Path) -> Talk:
    return _start(
        "half-start",
        "A shared start of which 16-bit tensors are on the lattice.",
        folder,
        same=True,
        dtypes={"fc.weight": "bfloat16", "fc.bias": "float16"},
        first_bits=9,
    )


SCENARIOS: tuple[Scenario, ...] = (
    rounds,
    lost,
    twice,
    stale,
    stranger,
    declined,
    forget,
    without_feedback,
    evaluation,
    shared_start,
    other_start,
    coarse_start,
    half_start,
)
