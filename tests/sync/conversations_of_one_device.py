"""What befalls a device and its messages, one thing in each conversation."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from flwr_caesar.codec import get_codec
from flwr_caesar.strategies.lattice_downlink import LatticeDownlink
from flwr_caesar.strategies.method import ServerMethod
from flwr_caesar.strategies.phase import DevicePlan
from flwr_caesar.sync.wire import opened, sealed
from flwr_caesar.transport import (
    Plan,
    frame_to_record,
    record_to_frame,
    require_note,
    with_note,
)
from flwr_caesar.transport.short import shorten

from .record_conversations import RECORD, Scenario, Talk, first_model

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


def resync(folder: Path) -> Talk:
    talk = Talk(
        "resync",
        "Models that cannot be made: a folder that was deleted, a damaged frame, a "
        "change of another model; and a change that fits all the same.",
        caesar(),
        folder,
    )
    talk.round({1: "a"})
    talk.round({1: "a"})
    talk.delete("a")
    assert "whole" in talk.round({1: "a"})[1].reason
    assert talk.round({1: "a"})[1].counts
    content = talk.server.ask([1])[1]
    frame = bytearray(record_to_frame(content.array_records[RECORD]))
    frame[-1] ^= 1
    damaged = RecordDict({**content, RECORD: frame_to_record(bytes(frame))})
    reply = talk.ask("a", damaged)
    assert reply is not None
    talk.server.hear(1, reply)
    talk.server.close()
    assert talk.round({1: "a"})[1].counts
    content = talk.server.ask([1])[1]
    talk.ask("a", RecordDict({n: r for n, r in content.items() if n != RECORD}))
    content = talk.server.ask([1])[1]
    plan, header = Plan.read(content)
    assert header.base is not None
    wrong = replace(header, target=(header.target[0], bytes(8)))
    talk.ask("a", with_note(content, plan.note(wrong)))
    content = talk.server.ask([1])[1]
    plan, header = Plan.read(content)
    renamed = replace(header, base=(header.base[0] + 70, bytes(range(8))))
    talk.ask("a", with_note(content, plan.note(renamed)))
    # That reply was lost, so the server builds on what the device holds no more.
    assert "whole" in talk.round({1: "a"})[1].reason
    assert talk.round({1: "a"})[1].counts
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


def copied(folder: Path) -> Talk:
    talk = Talk(
        "copied",
        "Two copies of a folder, and a backup of one: the second gives up what it has "
        "and becomes a new device.",
        topk(),
        folder,
    )
    talk.round({1: "a"})
    talk.copy("a", "b")
    talk.copy("a", "backup")
    talk.round({1: "a"})
    assert "another copy" in talk.round({2: "b"})[2].reason
    assert talk.round({1: "a", 2: "b"})[2].counts
    talk.copy("backup", "a")
    assert talk.round({1: "a"})[1].counts
    assert talk.round({1: "a", 2: "b"})[1].counts
    return talk


def backup_unused(folder: Path) -> Talk:
    talk = Talk(
        "backup-unused",
        "A backup to which nothing was applied since goes on as if nothing happened.",
        topk(),
        folder,
    )
    talk.round({1: "a"})
    talk.round({1: "a"})
    talk.copy("a", "backup")
    talk.round({1: "a"}, lose=(1,))
    talk.copy("backup", "a")
    assert talk.round({1: "a"})[1].counts
    return talk


def server_restored(folder: Path) -> Talk:
    talk = Talk(
        "server-restored",
        "A server that goes back to an older ledger: what it does not name returns.",
        topk(),
        folder,
    )
    talk.round({1: "a"})
    old, model, version = talk.backup(), talk.server.model, talk.server._version
    talk.round({1: "a"})
    talk.round({1: "a"})
    talk.server.model, talk.server._version = model, version
    talk.server.method.downlink.publish(model, version[0])
    talk.server.start(old)
    assert talk.round({1: "a"})[1].counts
    assert talk.round({1: "a"})[1].counts
    return talk


def deadline(folder: Path) -> Talk:
    talk = Talk(
        "deadline",
        "Replies that come after their round was closed: not applied, and sent again "
        "with the next update.",
        caesar(),
        folder,
    )
    talk.round({1: "a", 2: "b"})
    for late in (1, 2, 1):
        asked = talk.server.ask([1, 2])
        replies = {n: talk.ask("ab"[n - 1], c) for n, c in asked.items()}
        for node, reply in replies.items():
            assert reply is not None
            if node != late:
                talk.server.hear(node, reply)
        talk.server.close()
        assert not talk.server.hear(late, replies[late]).counts
        # The server builds on what the late one holds no more: a whole model first.
        assert "whole" in talk.round({1: "a", 2: "b"})[late].reason
    verdicts = talk.round({1: "a", 2: "b"})
    assert all(verdict.counts for verdict in verdicts.values())
    return talk


def full_disk(folder: Path) -> Talk:
    talk = Talk(
        "full-disk",
        "A disk that refuses a write: before the training, or of the upload. Nothing "
        "is sent, nothing changes, and the same request succeeds later.",
        caesar(),
        folder,
    )
    talk.ask("a", talk.server.ask([1])[1], full="prepare")
    talk.round({1: "a"})
    content = talk.server.ask([1])[1]
    assert talk.ask("a", content, full="prepare") is None
    assert talk.ask("a", content, full="save") is None
    reply = talk.ask("a", content)
    assert reply is not None
    assert talk.server.hear(1, reply).counts
    talk.server.close()
    content = talk.server.ask([1], train=False)[1]
    assert talk.ask("a", content, kind="evaluate", full="save") is None
    talk.ask("a", content, kind="evaluate")
    talk.round({1: "a"})
    return talk


def app_fails(folder: Path) -> Talk:
    talk = Talk(
        "app-fails",
        "An app that fails, or returns what cannot be sent: an error, and nothing "
        "changes; the same request is then handled anew.",
        topk(),
        folder,
    )
    talk.round({1: "a"})
    content = talk.server.ask([1])[1]
    assert talk.ask("a", content, fails="out of memory") is None
    odd = talk.trained()
    odd["fc.bias"][3] = np.nan
    assert talk.ask("a", content, trained=odd) is None
    short = talk.trained()
    short["fc.bias"] = short["fc.bias"][:-1]
    assert talk.ask("a", content, trained=short) is None
    other = talk.trained()
    other["more"] = np.zeros(2, np.float32)
    assert talk.ask("a", content, trained=other) is None
    reply = talk.ask("a", content)
    assert reply is not None
    assert talk.server.hear(1, reply).counts
    talk.server.close()
    talk.round({1: "a"})
    return talk


def damaged_headers(folder: Path) -> Talk:
    talk = Talk(
        "damaged-headers",
        "Notes that are damaged or say what nobody may: an error for each, and nothing "
        "changes.",
        topk(),
        folder,
    )
    talk.round({1: "a"})
    content = talk.server.ask([1])[1]
    note = require_note(content)
    body = opened(note)
    for name, damaged in _damaged(note, body):
        reply = talk.ask("a", with_note(content, damaged), about=name)
        assert reply is None, name
    reply = talk.ask("a", content)
    assert reply is not None
    assert talk.server.hear(1, reply).counts
    return talk


def _damaged(note: bytes, body: bytes) -> list[tuple[str, bytes]]:
    def at(place: int, value: bytes) -> bytes:
        return sealed(body[:place] + value + body[place + len(value) :])

    def with_plan(text: bytes) -> bytes:
        return sealed(body[:end] + shorten(text))

    def with_applied(ids: bytes) -> bytes:
        return sealed(body[:applied] + ids + body[end:])

    # protocol, plan's flags, header's flags, lineage, incarnation: then the phase
    phase = 3 + 8 + 8
    assert body[phase] < 0x80, "a phase of one byte"
    target = phase + 1 + 8
    applied = target + 1 + 8 + 16
    assert body[applied] == 1
    end = applied + 1 + 8
    upload = body[applied + 1 : end]
    ten = b"\x81" * 9 + b"\1"
    five = b"\5" + struct.pack(">5Q", *range(1, 6))
    return [
        ("a bit of the checksum", note[:-1] + bytes([note[-1] ^ 1])),
        ("a bit of the order", at(12, bytes([body[12] ^ 4]))[:-4] + note[-4:]),
        ("nothing", b""),
        ("three bytes", note[:3]),
        ("cut", sealed(body[:20])),
        ("protocol 1", at(0, b"\1")),
        ("protocol 3", at(0, b"\3")),
        ("an unknown flag of the plan", at(1, bytes([body[1] | 32]))),
        ("an unknown flag of the header", at(2, bytes([body[2] | 16]))),
        ("a base of kind 3", at(2, bytes([body[2] | 3]))),
        ("lineage 0", at(3, bytes(8))),
        ("an incarnation of 2^63", at(11, b"\x80")),
        ("a phase that is longer than it needs", at(phase, b"\x82\0")),
        ("a phase of ten bytes", sealed(body[:phase] + ten + body[phase + 1 :])),
        ("five applied ids", with_applied(five)),
        ("an id twice", with_applied(b"\2" + upload + upload)),
        ("the id 0", with_applied(b"\1" + bytes(8))),
        ("a plan that is no stream", sealed(body[:end] + b"\xff\xff")),
        ("a plan that is cut", sealed(body[:-3])),
        ("a plan with bytes after it", sealed(body + b"\0")),
        ("the plan twice", sealed(body + body[end:])),
        ("a plan that is no object", with_plan(b"[]")),
        ("a plan that is no JSON", with_plan(b'{"upload":')),
        ("an unknown key", with_plan(b'{"uplaod":{}}')),
        ("a record that is a number", with_plan(b'{"record":5}')),
        ("an age that is true", with_plan(b'{"max-residual-age":true}')),
        ("an age that is 1.0", with_plan(b'{"max-residual-age":1.0}')),
        ("a negative age", with_plan(b'{"max-residual-age":-1}')),
        ("more than 1 MiB", with_plan(b'{"record": "' + b"a" * (1 << 20) + b'"}')),
    ]


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
    name: str, about: str, folder: Path, *, same: bool, **options: object
) -> Talk:
    initial = first_model()
    if not same:
        initial["fc.bias"][0] += np.float32(1)
    method = caesar(shared_start=True, **options)
    talk = Talk(name, about, method, folder, initial=initial)
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


SCENARIOS: tuple[Scenario, ...] = (
    rounds,
    lost,
    twice,
    stale,
    resync,
    stranger,
    copied,
    backup_unused,
    server_restored,
    deadline,
    full_disk,
    app_fails,
    damaged_headers,
    declined,
    forget,
    without_feedback,
    evaluation,
    shared_start,
    other_start,
    coarse_start,
)
