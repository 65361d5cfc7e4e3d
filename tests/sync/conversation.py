"""The device of a conversation: the very mod, on a folder, its surroundings given.

Its random numbers, clock, board and disk are those that a file says. The recorder fills
in what it finds, the test compares.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from flwr.app import Context, Message, RecordDict

from flwr_caesar.clients import CompressionMod, handling
from flwr_caesar.clients.board import Board
from flwr_caesar.codec import Codec, CodecError, CodecState, Layout, get_codec
from flwr_caesar.flower import readdress
from flwr_caesar.sync.errors import StateError
from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.sync.sources import TOKEN_BYTES, Sources
from flwr_caesar.sync.state import DeviceState
from flwr_caesar.telemetry import Telemetry
from flwr_caesar.transport import (
    Abilities,
    DeviceReport,
    arrays_to_record,
    record_to_frame,
)

from .conversation_json import (
    comparable,
    content_from_json,
    content_to_json,
    explained,
    seen,
    state_to_json,
    tensors_from_json,
    upload_to_json,
)

__all__ = [
    "Draws",
    "Replay",
    "comparable",
    "content_from_json",
    "content_to_json",
    "upload_to_json",
]


class Draws:
    """Random numbers of a device: those of a step, or new ones to record."""

    def __init__(self, given: Mapping[str, list[str]] | None, fresh: Iterator[bytes]):
        self._fresh = fresh
        self._given = None if given is None else {k: list(v) for k, v in given.items()}
        self.tokens: list[str] = []
        self.ids: list[str] = []

    def token_bytes(self, size: int) -> bytes:
        """Return a token, or in eight bytes an id."""
        is_token = size == TOKEN_BYTES
        if self._given is None:
            value = next(self._fresh)[:size]
            value = value if is_token else value[::-1]  # as the files have it
        elif is_token:
            value = bytes.fromhex(self._given["tokens"].pop(0))
        else:
            value = int(self._given["ids"].pop(0)).to_bytes(size, "little")
        if is_token:
            self.tokens.append(value.hex())
        else:
            self.ids.append(str(int.from_bytes(value, "little")))
        return value

    def to_json(self) -> dict[str, list[str]]:
        assert self._given is None or not any(self._given.values()), "draws left over"
        return {"tokens": self.tokens, "ids": self.ids}


class _FullStore(FolderStore):
    """A folder on a disk that is full at one of the two writes."""

    full = ""

    def prepare(self, state: DeviceState) -> DeviceState:
        if self.full == "prepare":
            raise StateError("the disk is full")
        return super().prepare(state)

    def save(self, state: DeviceState) -> None:
        if self.full == "save":
            raise StateError("the disk is full")
        super().save(state)


class _Watch:
    takes_fewer = False

    def __init__(self, board: Mapping[str, Any]) -> None:
        self.declines = board.get("declines", "")
        self._told = dict(board.get("telemetry", {}))

    def decline(self) -> None:
        self._told["policy"] = f"declined: {self.declines}"

    def steps(self, asked: int) -> int:
        return asked

    def stop(self) -> Telemetry | None:
        return Telemetry.of(self._told) if self._told else None


class _Clock:
    def __init__(self, seconds: list[float]) -> None:
        self._seconds = seconds

    def spared(self, seconds: float) -> None: ...

    def decoded(self) -> None: ...

    def trained(self) -> None: ...

    def report(self, *, part, labels=(), telemetry=None) -> DeviceReport:
        return DeviceReport(*self._seconds, labels, part, telemetry)


class Replay:
    """Devices of a conversation, each with its store in a folder.

    Parameters
    ----------
    folder : Path
        Empty, for the stores.
    conversation : mapping
        As in its file; its steps are not looked at.
    """

    def __init__(self, folder: Path, conversation: Mapping[str, Any]) -> None:
        self._folder = folder
        self._initial = conversation.get("initial")
        self._can = conversation.get("can", {})

    def state(self, store: str, lineage: int) -> DeviceState | None:
        with FolderStore(self._folder / store) as folder:
            return folder.load(lineage)

    def copy(self, source: str, target: str) -> None:
        self.delete(target)
        shutil.copytree(self._folder / source, self._folder / target)

    def delete(self, store: str) -> None:
        shutil.rmtree(self._folder / store, ignore_errors=True)

    def ask(
        self, step: Mapping[str, Any], *, lineage: int, draws: Draws
    ) -> dict[str, Any]:
        """Handle a message as the step says; return what to expect of it."""
        given: dict[str, Any] = {}

        def app(msg: Message, _: Context) -> Message:
            given["app"] = seen(msg.content)
            if "fails" in step["app"]:
                raise RuntimeError(step["app"]["fails"])
            content = content_from_json(step["app"]["returns"])
            return Message(content, reply_to=msg)

        message = Message(
            content_from_json(step["message"]), dst_node_id=1, message_type=step["kind"]
        )
        readdress(message, message_id="request")
        labels, can = step.get("labels"), self._can.get(step["store"])
        device = CompressionMod(
            initial=None
            if self._initial is None
            else arrays_to_record(tensors_from_json(self._initial)),
            labels=None if labels is None else lambda _: labels,
            can=None if can is None else Abilities.of(can),
            sources=Sources(token_bytes=draws.token_bytes),
        )
        context = Context(1, 1, {}, RecordDict(), {})
        found: dict[str, Any] = {}
        with self._surroundings(step):
            try:
                reply = device(message, context, app).content
            except (CodecError, StateError, RuntimeError) as err:
                found["error"] = str(err)
            else:
                found["reply"] = content_to_json(reply)
        found |= given
        state = self.state(step["store"], lineage)
        if "reply" in found:
            found |= explained(reply, state)
        return {**found, "state": state_to_json(state)}

    @contextmanager
    def _surroundings(self, step: Mapping[str, Any]) -> Iterator[None]:
        @contextmanager
        def open_store(_: Context) -> Iterator[FolderStore]:
            with _FullStore(self._folder / step["store"]) as store:
                store.full = step.get("full", "")
                yield store

        @contextmanager
        def watched() -> Iterator[Board]:
            yield Board(_Watch(step["board"]) if "board" in step else None)

        clock = _Clock(step.get("seconds", [0.0] * 4))
        with ExitStack() as stack:
            for where, name, what in (
                (handling, "open_store", open_store),
                (handling, "watched", watched),
                (handling, "Stopwatch", lambda: clock),
                (handling, "get_codec", partial(_codec, _recorded(step))),
            ):
                stack.enter_context(mock.patch.object(where, name, what))
            yield


@dataclass(frozen=True)
class _Recorded:
    """A codec whose writer chose long ago: it gives the frame of a file."""

    codec: Codec
    frame: bytes

    def encode(self, arrays: Any, state: CodecState | None) -> tuple[Any, ...]:
        known = CodecState(Layout.of(arrays)) if state is None else state
        return self.frame, known

    def encode_decoded(
        self, arrays: Any, state: CodecState | None, *, only: Any = None
    ) -> tuple[Any, ...]:
        frame, known = self.encode(arrays, state)
        return (frame, *self.codec.decode(frame, known))


def _recorded(step: Mapping[str, Any]) -> bytes | None:
    """Return the frame of a step in which the writer is free, once it is recorded."""
    says = step.get("expect", {}).get("says", {})
    if says.get("upload", {}).get("writer") != "free":
        return None
    reply = content_from_json(step["expect"]["reply"])
    return record_to_frame(reply.array_records[says["upload"]["record"]])


def _codec(frame: bytes | None, config: Any) -> Any:
    codec = get_codec(config)
    return codec if frame is None else _Recorded(codec, frame)
