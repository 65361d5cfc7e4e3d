"""Messages of other shapes: records, sizes, dtypes, many rounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
from flwr.app import ConfigRecord, RecordDict

from flwr_caesar.codec import get_codec
from flwr_caesar.strategies.method import ServerMethod
from flwr_caesar.strategies.phase import DevicePlan
from flwr_caesar.transport import (
    Plan,
    arrays_to_record,
    exact_record,
    frame_to_record,
    record_to_frame,
    with_note,
)

from .conversation_server import Arrays
from .conversations_of_methods import PRUNE
from .conversations_of_one_device import LATTICE, TOPK, caesar, topk
from .record_conversations import RECORD, Scenario, Talk


def records(folder: Path) -> Talk:
    talk = Talk(
        "records",
        "Where a note is, how records are named, and what else travels beside a model.",
        topk(),
        folder,
    )
    talk.round({1: "a"})
    plan, header = Plan.read(content := talk.server.ask([1])[1])
    frame = content.array_records[RECORD]
    bare = RecordDict({"weights": frame})
    renamed = Plan(
        record="weights", upload=plan.upload, error_feedback=True, ask_labels=True
    )
    # A note in a record of its own; two ConfigRecords: it is in the first.
    talk.ask("a", with_note(bare, renamed.note(header)), labels=[1, 2], fails="later")
    more = RecordDict(
        {
            "first": ConfigRecord({"lr": 0.5, "names": ["a", "b"], "on": True}),
            "mask": exact_record(arrays_to_record({"m": np.ones(40, np.int8)})),
            "weights": frame,
            "second": ConfigRecord({"raw": b"\1\2", "flags": [True, False]}),
        }
    )
    # The app returns its model under another name, and alone.
    reply = talk.ask("a", with_note(more, renamed.note(header)), labels=[1, 2])
    assert reply is not None
    assert talk.server.hear(1, reply).counts
    talk.server.close()
    # The header alone: the app is given the model first of all records.
    talk.round({1: "a"}, train=False)
    content = talk.server.ask([1], train=False)[1]
    plan, header = Plan.read(content)
    assert header.base == header.target
    only = RecordDict({"extra": ConfigRecord({"k": 1})})
    talk.ask("a", with_note(only, plan.note(header)), kind="evaluate")
    # The note of a reply without a frame is in the app's first ConfigRecord.
    notes = {"notes": ConfigRecord({"k": 2}), "later": ConfigRecord({"k": 3})}
    talk.ask("a", with_note(only, plan.note(header)), kind="evaluate", extra=notes)
    # Several ArrayRecords come back, and none is the model: an error.
    content = talk.server.ask([1])[1]
    plan, header = Plan.read(content)
    other = Plan(record="model", upload=plan.upload, error_feedback=True)
    extra = {"momentum": arrays_to_record({"m": np.ones(3, np.float32)})}
    talk.ask("a", with_note(only, other.note(header)), extra=extra)
    # Plain arrays where the frame should be.
    wrong = RecordDict({RECORD: arrays_to_record(talk.server.model)})
    talk.ask("a", with_note(wrong, plan.note(header)))
    return talk


def large(folder: Path) -> Talk:
    rng = np.random.default_rng(8)
    model = {"w": rng.normal(0, 1, (40, 40)).astype(np.float32)}
    talk = Talk(
        "large",
        "Frames of more than 4,096 bytes, which are not shortened, down and up.",
        ServerMethod(upload=get_codec("dense"), error_feedback=True),
        folder,
        model=model,
    )
    talk.round({1: "a"})
    talk.round({1: "a"}, lose=(1,))
    talk.round({1: "a"})
    return talk


def _kinds() -> Arrays:
    rng = np.random.default_rng(9)
    return {
        "": rng.normal(0, 1, (6, 5)).astype(np.float32),
        "double": rng.normal(0, 1, 30),
        "brain": rng.normal(0, 1, 24).astype(ml_dtypes.bfloat16),
        "half": rng.normal(0, 1, 24).astype(np.float16),
        "mask": rng.random(9) < 0.5,
        "bytes": np.arange(7, dtype=np.uint8),
        "signed": np.arange(-3, 3, dtype=np.int16).reshape(2, 3),
        "unsigned": np.array([2**64 - 1, 0], np.uint64),
        "none": np.zeros((0, 3), np.float32),
        "größe/单位": np.array(1.5, np.float32),
    }


def _moved(talk: Talk) -> Arrays:
    rng = np.random.default_rng(len(talk.steps))
    moved = {}
    for name, array in talk.server.held.items():
        if array.dtype.kind in "biu":
            moved[name] = ~array if array.dtype.kind == "b" else array
        else:
            change = rng.normal(0, 0.1, array.shape)
            moved[name] = np.asarray(array.astype(np.float64) + change, array.dtype)
    return moved


def dtypes(folder: Path) -> Talk:
    """The server goes on with its first model: what is averaged is not the point."""
    talk = Talk(
        "dtypes",
        "Tensors of every kind of dtype, without elements, without axes, of odd names.",
        topk(),
        folder,
        model=_kinds(),
    )
    for config in (TOPK, LATTICE, {"id": "dense"}, PRUNE):
        plans = {1: DevicePlan(get_codec({**config, **_small(config)}))}
        content = talk.server.ask([1], plans=plans)[1]
        reply = talk.ask("a", content, trained=_moved(talk))
        assert reply is not None
        talk.server.session.close_phase()
    return talk


def _small(config: dict[str, object]) -> dict[str, int]:
    return {"exact_below": 10} if "exact_below" in config else {}


def overflow(folder: Path) -> Talk:
    """Finite numbers whose sum or difference is not."""
    big = np.float32(3e38)
    model = {"w": np.full(16, -big), "v": np.linspace(-1, 1, 24, dtype=np.float32)}
    talk = Talk(
        "overflow",
        "Differences and sums beyond float32 become its largest number.",
        topk(),
        folder,
        model=model,
    )
    talk.server.method.upload = get_codec(
        {"id": "topk", "density": 0.1, "values": "float32", "exact_below": 1}
    )
    for _ in range(2):
        content = talk.server.ask([1])[1]
        trained = {**talk.server.held, "w": np.full(16, big)}
        trained["w"][::2] = talk.server.held["w"][::2] + np.float32(1e38)
        reply = talk.ask("a", content, trained=trained)
        assert reply is not None
        talk.server.session.close_phase()
    return talk


def many_rounds(folder: Path) -> Talk:
    model = {"w": np.arange(6, dtype=np.float32)}
    talk = Talk(
        "many-rounds",
        "More uploads than a device remembers, then one at a new node: known has 17.",
        topk(),
        folder,
        model=model,
    )
    for _ in range(18):
        assert talk.round({1: "a"})[1].counts
    assert talk.round({2: "a"})[2].counts
    return talk


def inexact(folder: Path) -> Talk:
    talk = Talk(
        "inexact",
        "A model that need not be the one that its digest names, and a base that has "
        "to be held.",
        caesar(),
        folder,
    )
    talk.round({1: "a"})
    for base in (False, True):
        content = talk.server.ask([1])[1]
        plan, header = Plan.read(content)
        off = dict(talk.server.held)
        off["fc.bias"] = off["fc.bias"] + np.float32(0.5)
        frame = get_codec("dense").encode(off)[0]
        loose = Plan(upload=plan.upload, error_feedback=True, exact=False)
        told = replace(header, base=(99, bytes(8)) if base else None)
        message = RecordDict({RECORD: frame_to_record(frame)})
        assert record_to_frame(message.array_records[RECORD]) == frame
        trained = talk.trained(off)
        talk.ask("a", with_note(message, loose.note(told)), trained=trained)
        talk.server.session.close_phase()
    return talk


SCENARIOS: tuple[Scenario, ...] = (
    records,
    large,
    dtypes,
    overflow,
    many_rounds,
    inexact,
)
