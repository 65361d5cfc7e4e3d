"""What goes wrong with messages, folders, apps and servers, one thing at a time."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import RecordDict

from flwr_caesar.sync.wire import opened, sealed
from flwr_caesar.transport import (
    Plan,
    frame_to_record,
    record_to_frame,
    require_note,
    with_note,
)
from flwr_caesar.transport.short import shorten

from .conversations_of_one_device import caesar, topk
from .record_conversations import RECORD, Scenario, Talk


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


def too_long(folder: Path) -> Talk:
    talk = Talk(
        "too-long",
        "A server that says how long an update may be: one training that was longer is "
        "given up, many that are longer together go in parts.",
        topk(),
        folder,
        needs=["longest"],
    )
    talk.round({1: "a"})
    diverged = talk.trained()
    diverged["fc.weight"] = diverged["fc.weight"] * np.float32(1000)
    talk.ask("a", talk.server.ask([1])[1], trained=diverged)
    talk.server.session.close_phase()
    _believing(talk, 5.0)
    for _ in range(4):
        talk.round({1: "a"}, lose=(1,))
    _believing(talk, 1.0)
    _believing(talk, 1.0)
    # The training of this very request is too long: it is sent as it is.
    _believing(talk, 2.0**-10)
    return talk


def _believing(talk: Talk, longest: float) -> None:
    content = talk.server.ask([1])[1]
    plan, header = Plan.read(content)
    told = replace(header, longest=longest)
    reply = talk.ask("a", with_note(content, plan.note(told)))
    assert reply is not None
    assert talk.server.hear(1, reply).counts
    talk.server.close()


SCENARIOS: tuple[Scenario, ...] = (
    resync,
    copied,
    backup_unused,
    server_restored,
    deadline,
    full_disk,
    app_fails,
    damaged_headers,
    too_long,
)
