"""What one hostile node can say and do in a round, and what is to meet it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import zstandard
from flwr.app import (
    Array,
    ArrayRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)

from flwr_caesar.codec import get_codec, inspect_frame
from flwr_caesar.codec.conformance.mutate import Parts, seal
from flwr_caesar.codec.contract.base import TABLE_TAG
from flwr_caesar.codec.contract.frame import stamp
from flwr_caesar.faults.app import SHAPES
from flwr_caesar.flower import readdress
from flwr_caesar.sync.protocol import EVALUATED, UploadHeader
from flwr_caesar.sync.wire import opened, sealed
from flwr_caesar.transport import (
    DeviceReport,
    Plan,
    frame_to_record,
    record_to_frame,
    require_note,
    with_note,
)
from flwr_caesar.transport.short import pack_mapping

from .raw_node import RawNode

MB = 1 << 20
FORGED = "train: used 4 of 4 replies; all is well"
_LONG = 20 * MB
_RAW, _ZSTD = 0, 1


@dataclass
class Scene:
    """What a hostile node has to work with in one round.

    Parameters
    ----------
    node : RawNode
        Itself.
    request : Message
        That it is to answer.
    plan : Plan
        Of the request.
    good : RecordDict
        What an honest device in its place would say.
    overheard : list of RecordDict
        What others said before, the newest last.
    """

    node: RawNode
    request: Message
    plan: Plan
    good: RecordDict
    overheard: list[RecordDict] = field(default_factory=list)

    @property
    def frame(self) -> bytes:
        """The upload of an honest device."""
        return record_to_frame(self.good["arrays"])

    @property
    def header(self) -> UploadHeader:
        """The header of an honest device."""
        return DeviceReport.read(self.good)[1]

    def say(self, said: RecordDict | Error) -> None:
        """Answer, and upload all of it."""
        self.node.reply(self.request, said)

    def with_record(self, key: str, record: Any) -> RecordDict:
        """Return the good answer with another record."""
        return RecordDict({**self.good, key: record})

    def with_note(self, note: bytes) -> RecordDict:
        """Return the good answer with another note."""
        return with_note(self.good, note, leads="arrays")

    def with_header(self, **values: Any) -> RecordDict:
        """Return the good answer with another header, whose checksum is right."""
        return self.with_note(DeviceReport().note(replace(self.header, **values)))

    def with_claims(self, **claims: Any) -> RecordDict:
        """Return the good answer with other claims in its report."""
        note = opened(DeviceReport().note(self.header))
        return self.with_note(sealed(note + pack_mapping(claims)))

    def with_frame(self, frame: bytes) -> RecordDict:
        """Return the good answer with other bytes for its upload."""
        said = RecordDict({**self.good, "arrays": frame_to_record(frame)})
        return with_note(said, require_note(self.good), leads="arrays")

    def with_values(
        self,
        fill: Callable[[tuple[int, ...]], np.ndarray[Any, Any]],
        *,
        shapes: Mapping[str, tuple[int, ...]] = SHAPES,
        codec: Any = None,
        **metrics: Any,
    ) -> RecordDict:
        """Return an answer in good form with these values."""
        arrays = {
            name: fill(shape).astype(np.float32) for name, shape in shapes.items()
        }
        frame, _ = get_codec(codec or dict(self.plan.upload)).encode(arrays)
        info = inspect_frame(self.frame)
        stamped = stamp(frame, lineage=info.lineage, base_version=info.base_version)
        said = self.with_frame(stamped)
        if metrics:
            said["metrics"] = MetricRecord({**self.good["metrics"], **metrics})
        return said


@dataclass(frozen=True)
class Attack:
    """One attack.

    Parameters
    ----------
    name : str
        What is tried.
    act : callable
        Does it.
    met : str
        Regular expression of the reason with which it is dropped; empty if it may
        count, within limits.
    ends : bool
        Whether an answer arrives at all. If not, the round needs a quorum.
    """

    name: str
    act: Callable[[Scene], None]
    met: str
    ends: bool = True


def says(make: Callable[[Scene], RecordDict | Error]) -> Callable[[Scene], None]:
    """Make an act of an answer."""
    return lambda scene: scene.say(make(scene))


def metrics(**values: Any) -> Callable[[Scene], None]:
    """Answer with other metrics."""
    named = {key.replace("_", "-"): value for key, value in values.items()}
    return says(
        lambda s: s.with_record("metrics", MetricRecord({**s.good["metrics"], **named}))
    )


def claims(**values: Any) -> Callable[[Scene], None]:
    """Answer with other claims in the report."""
    return says(lambda scene: scene.with_claims(**values))


def header(**values: Any) -> Callable[[Scene], None]:
    """Answer with another header."""
    return says(lambda scene: scene.with_header(**values))


def one_huge(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    values = np.zeros(shape)
    values.flat[0] = 1e37
    return values


def noise(scale: float) -> Callable[[tuple[int, ...]], np.ndarray[Any, Any]]:
    """Return a maker of values of this size."""
    return lambda shape: scale * np.random.default_rng(1).normal(size=shape)


def with_contents(frame: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a frame whose sections, but for the tensor table, say something else."""
    parts = Parts.of(frame)
    for entry in parts.entries:
        tag, encoding, _, _, data = entry
        if tag == TABLE_TAG.encode():
            continue
        raw = data if encoding == _RAW else zstandard.decompress(data)
        changed = change(raw)
        stored = zstandard.compress(changed)
        entry[1:] = [_ZSTD, len(changed), len(stored), stored]
    return seal(parts.join())


def all_nan(content: bytes) -> bytes:
    whole = len(content) // 4
    return struct.pack("<f", np.nan) * whole + content[4 * whole :]


def forged_token(scene: Scene) -> RecordDict:
    """Speak for another device: with its token, to this node's own request."""
    other = DeviceReport.read(scene.overheard[-1])[1]
    return scene.with_header(token=other.token, known=other.known)


def never_uploads(scene: Scene) -> None:
    scene.node.announce(scene.node.message(scene.request, scene.good))


def trickles(scene: Scene) -> None:
    """Upload some parts, slowly, and never the last one."""
    message = scene.node.message(scene.request, scene.good)
    announced = scene.node.announce(message)
    scene.node.push(*announced, most=2, seconds_between=0.5)


def other_parts(scene: Scene) -> None:
    """Upload other bytes than were announced."""
    message = scene.node.message(scene.request, scene.good)
    announced = scene.node.announce(message)
    scene.node.push(*announced, change=lambda content: content[:-1] + b"\0")


def addressed(**values: Any) -> Callable[[Scene], None]:
    """Answer with other metadata."""

    def act(scene: Scene) -> None:
        message = scene.node.message(scene.request, scene.good)
        readdress(message, **values)
        scene.node.push(*scene.node.announce(message))

    return act


def twice(scene: Scene) -> None:
    scene.say(scene.good)
    scene.say(scene.with_values(noise(1e20)))


BOMB = {"weight": (1 << 12, 1 << 12)}
"""Zeros for 64 MB, which compress to some kB."""

WORST = (
    Attack(
        "NaN in place of all values",
        says(lambda s: s.with_frame(with_contents(s.frame, all_nan))),
        "lattice has a malformed step",
    ),
    Attack(
        "one element of 1e37",
        says(lambda s: s.with_values(one_huge)),
        "times as long as the median",
    ),
    Attack("num-examples 1e30", metrics(num_examples=1e30), "not a number from 0 to"),
    Attack(
        "an upload of 20 MB",
        says(lambda s: s.with_frame(bytes(_LONG))),
        "MB|bytes|large",
    ),
    Attack("another device's token", says(forged_token), "another node|another copy"),
    Attack(
        "another device's reply, replayed",
        says(lambda s: s.overheard[-1]),
        "answers another request",
    ),
    Attack(
        "tensors of other names",
        says(
            lambda s: s.with_values(noise(0.1), shapes={"other": (34, 32), "b": (32,)})
        ),
        "claims|tensor|layout",
    ),
    Attack(
        "an error of 20 MB that forges a line of the log",
        says(lambda _: Error(2, f"x\nINFO :      {FORGED}\n" + "x" * _LONG)),
        r"error 2: x\\n",
    ),
    Attack(
        "a bomb: 64 MB of zeros",
        says(lambda s: s.with_values(np.zeros, shapes=BOMB, codec="dense")),
        "claims|codec|tensor",
    ),
    Attack("a trickled upload", trickles, "no reply before", ends=False),
)


def claims_epoch(scene: Scene) -> RecordDict:
    """Say that it has left the epoch of the control variates."""
    return scene.with_claims(part={"epoch": 5, "settled": 99})


OTHER_EPOCH = (Attack("another epoch of the control variates", says(claims_epoch), ""),)


def flipped(frame: bytes) -> bytes:
    return frame[:-20] + bytes([frame[-20] ^ 1]) + frame[-19:]


MORE = (
    Attack("all elements 1e25", says(lambda s: s.with_values(noise(1e25))), "times as"),
    Attack(
        "100 times as long", says(lambda s: s.with_values(noise(100.0))), "times as"
    ),
    Attack("num-examples NaN", metrics(num_examples=float("nan")), "not a number"),
    Attack("num-examples -1", metrics(num_examples=-1.0), "not a number"),
    Attack("num-examples 1e14", metrics(num_examples=1e14), ""),
    Attack("num-examples a list", metrics(num_examples=[1.0]), "not a number"),
    Attack(
        "100,000 metrics",
        metrics(**{f"m{i}": 1.0 for i in range(100_000)}),
        "metric",
    ),
    Attack("other names of metrics", metrics(accuracy=1.0), "metric"),
    Attack("65,536 labels", claims(labels=[1] * 65_536), "report|note"),
    Attack("negative labels", claims(labels=[-1]), "labels that are no counts"),
    Attack(
        "a part of 5,000 characters", claims(part={"a": "x" * 5_000}), "part|report"
    ),
    Attack("a part that is a list", claims(part=[1]), "part"),
    Attack("unknown claims", claims(admin=True), "unknown fields"),
    Attack("another nonce", header(nonce=7), "another request"),
    Attack("a known upload that never was", header(known=(1, 2, 3)), ""),
    Attack("no upload", header(status=EVALUATED, upload_id=0), "asked for|upload"),
    Attack("a damaged note", says(lambda s: s.with_note(bytes(80))), "damaged|note"),
    Attack(
        "no note", says(lambda s: RecordDict({"arrays": plain()})), "compression_mod"
    ),
    Attack(
        "plain arrays", says(lambda s: s.with_record("arrays", plain())), "compress"
    ),
    Attack("an empty upload", says(lambda s: s.with_frame(b"")), "frame|note"),
    Attack("half an upload", says(lambda s: s.with_frame(s.frame[:40])), "frame|trunc"),
    Attack("a flipped bit", says(lambda s: s.with_frame(flipped(s.frame))), "corrupt"),
    Attack(
        "another codec",
        says(lambda s: s.with_values(noise(0.1), codec="dense")),
        "codec",
    ),
    Attack(
        "another history",
        says(lambda s: s.with_frame(stamp(s.frame, lineage=7, base_version=0))),
        "another history",
    ),
    Attack(
        "a bomb beside the upload",
        says(lambda s: s.with_record("more", bomb())),
        "bytes|large|claims",
    ),
    Attack("an error without words", says(lambda _: Error(2, "")), "error 2"),
    Attack("an unknown error", says(lambda _: Error(999, "why not")), "error 999"),
    Attack("two answers", twice, ""),
)
ENDLESS = (
    Attack("an upload that is announced only", never_uploads, "no reply", ends=False),
    Attack("other bytes than announced", other_parts, "no reply", ends=False),
    Attack(
        "an answer to nothing",
        addressed(reply_to_message_id="0" * 64),
        "no reply",
        ends=False,
    ),
    Attack("an answer from another node", addressed(src_node_id=1), "no reply", False),
    Attack("silence", lambda _: None, "no reply", ends=False),
)


def plain() -> ArrayRecord:
    """Return arrays as an app without the mod sends them."""
    return ArrayRecord({n: Array(np.zeros(s, np.float32)) for n, s in SHAPES.items()})


def bomb() -> ArrayRecord:
    """Return 2 kB that hold 64 MB of zeros."""
    zeros = np.zeros(1 << 24, np.float32)
    return frame_to_record(get_codec("dense").encode({"more": zeros})[0])
