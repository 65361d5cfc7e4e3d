"""A server of Flower's Fleet API for one node, which fails as it is told to."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from flwr.app import Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2, node_pb2
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

HOST = "127.0.0.1"
NODE = (1 << 64) - 42
BEHIND, AHEAD = 305.0, 5.0

Fault = Callable[["Exchange", Callable[[], bytes]], None]


class Exchange(BaseHTTPRequestHandler):
    """One connection; a fault writes to it in place of the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fleet: FaultyFleet

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        call = self.path.rpartition("/")[2]
        self.fleet.calls.append(call)
        faults = self.fleet.faults[call]
        answer = partial(self.fleet.answer, call, body)
        if faults:
            faults.popleft()(self, answer)
        elif untimely := self.fleet.why_untimely(self.headers["flwr-timestamp"]):
            self.reply(401, {}, untimely.encode())
        else:
            self.reply(200, {}, answer())

    def reply(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send an answer; a header that is given replaces that of its name."""
        self.send_response_only(status)
        for name, value in {
            "Date": formatdate(time.time() + self.fleet.dated, usegmt=True),
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def status(code: int, headers: Mapping[str, str] | None = None) -> Fault:
    """Refuse, before the call does anything."""
    return lambda exchange, _: exchange.reply(code, headers or {}, b'{"code": 1}')


def closed(exchange: Exchange, answer: Callable[[], bytes]) -> None:
    """Close the connection without a word."""
    exchange.close_connection = True


def lost(exchange: Exchange, answer: Callable[[], bytes]) -> None:
    """Do what is asked, and close the connection without a word."""
    answer()
    exchange.close_connection = True


def cut(exchange: Exchange, answer: Callable[[], bytes]) -> None:
    """Promise more bytes than there are, the first fields of an answer."""
    exchange.reply(200, {"Content-Length": "100"}, b"\x08\x01\x10\x01")
    exchange.close_connection = True


def cut_after(exchange: Exchange, answer: Callable[[], bytes]) -> None:
    """Promise fewer bytes than come."""
    exchange.reply(200, {"Content-Length": "3"}, b"\x0a\x01a\x0a\x01b")
    exchange.close_connection = True


def garbage(exchange: Exchange, answer: Callable[[], bytes]) -> None:
    """Answer as the login page of a network does, with success."""
    exchange.reply(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")


def too_long(exchange: Exchange, answer: Callable[[], bytes]) -> None:
    """Send more than any answer has, until the device has enough of it."""
    exchange.reply(200, {"Content-Length": str(1 << 34)}, b"")
    exchange.close_connection = True
    try:
        for _ in range(1 << 10):
            exchange.wfile.write(bytes(1 << 20))
    except OSError:
        return


def trickles(exchange: Exchange, answer: Callable[[], bytes]) -> None:
    """Send one byte after another."""
    exchange.reply(200, {"Content-Length": "100"}, b"")
    exchange.close_connection = True
    try:
        for _ in range(100):
            exchange.wfile.write(b"\x08")
            time.sleep(0.001)
    except OSError:
        return


def silent(exchange: Exchange, answer: Callable[[], bytes]) -> None:
    """Leave the connection open, and say nothing for longer than it is waited for."""
    time.sleep(0.7)
    exchange.close_connection = True


class FaultyFleet:
    """A server with messages for one node.

    Parameters
    ----------
    flight : Path
        Where the node keeps its message in flight: looked at when it confirms one.

    Attributes
    ----------
    faults : mapping of str to deque
        For each call, what goes wrong with its next ones.
    dated : float
        Seconds by which the dates of its answers are ahead of its clock.
    """

    def __init__(self, flight: Path) -> None:
        handler = type("Handler", (Exchange,), {"fleet": self})
        self._server = ThreadingHTTPServer((HOST, 0), handler)
        self._server.daemon_threads = True
        self.address = f"http://{HOST}:{self._server.server_address[1]}"
        self._flight = flight
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.dated = 0.0
        self.calls: list[str] = []
        self.waiting: deque[Message] = deque()
        self.objects: dict[str, bytes] = {}
        self.confirmed: list[str] = []
        self.too_early: list[str] = []
        self.replies: list[Message] = []
        self._announced: dict[str, list[str]] = {}
        self.pushed: dict[str, bytes] = {}

    def __enter__(self) -> FaultyFleet:
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def send(self, content: RecordDict, *, ttl: float = 3600.0) -> Message:
        """Have a message wait for the node."""
        message = Message(content, dst_node_id=NODE, message_type="train", ttl=ttl)
        message.metadata.created_at = time.time()
        for key, part in get_all_nested_objects(message).items():
            self.objects[key] = part.deflate()
        self.waiting.append(message)
        return message

    def why_untimely(self, told: str) -> str:
        """Return why a signed time is refused; empty if it is not."""
        late = time.time() - datetime.fromisoformat(told).timestamp()
        return "" if -AHEAD < late < BEHIND else f"{late} s late"

    def answer(self, call: str, body: bytes) -> bytes:
        """Do what a call asks."""
        name = {
            "pull-messages": self._pull,
            "pull-object": self._pull_object,
            "confirm-message-received": self._confirm,
            "push-messages": self._push,
            "push-object": self._push_object,
            "send-node-heartbeat": self._beat,
            "register-node": self._register,
            "activate-node": self._activate,
        }
        found: Any = name[call](body)
        return bytes(found.SerializeToString())

    def _register(self, body: bytes) -> Any:
        return fleet_pb2.RegisterNodeFleetResponse(node_id=NODE)

    def _activate(self, body: bytes) -> Any:
        return fleet_pb2.ActivateNodeResponse(node_id=NODE)

    def _beat(self, body: bytes) -> Any:
        return heartbeat_pb2.SendNodeHeartbeatResponse(success=True)

    def _pull(self, body: bytes) -> Any:
        asked = fleet_pb2.PullMessagesRequest.FromString(body)
        assert asked.node == node_pb2.Node(node_id=NODE)
        if not self.waiting:
            return fleet_pb2.PullMessagesResponse()
        message = self.waiting.popleft()
        proto = message_to_proto(message)
        proto.ClearField("content")
        return fleet_pb2.PullMessagesResponse(
            messages_list=[proto], message_object_trees=[get_object_tree(message)]
        )

    def _pull_object(self, body: bytes) -> Any:
        asked = message_pb2.PullObjectRequest.FromString(body)
        found = self.objects.get(asked.object_id)
        return message_pb2.PullObjectResponse(
            object_found=found is not None,
            object_available=found is not None,
            object_content=found or b"",
        )

    def _confirm(self, body: bytes) -> Any:
        asked = message_pb2.ConfirmMessageReceivedRequest.FromString(body)
        kept = {path.name for path in self._flight.iterdir()}
        whole = {asked.message_object_id, "message"} <= kept
        whole &= all(
            get_object_id((self._flight / name).read_bytes()) == name
            for name in kept
            if len(name) == 2 * hashlib.sha256().digest_size
        )
        (self.confirmed if whole else self.too_early).append(asked.message_object_id)
        return message_pb2.ConfirmMessageReceivedResponse()

    def _push(self, body: bytes) -> Any:
        asked = fleet_pb2.PushMessagesRequest.FromString(body)
        (tree,) = asked.message_object_trees
        ids = [part.object_id for part in iterate_object_tree(tree)]
        self._announced[tree.object_id] = ids
        lacking = [key for key in ids if key not in self.pushed]
        return fleet_pb2.PushMessagesResponse(objects_to_push=lacking, session_id="s")

    def _push_object(self, body: bytes) -> Any:
        asked = message_pb2.PushObjectRequest.FromString(body)
        assert get_object_id(asked.object_content) == asked.object_id
        self.pushed[asked.object_id] = asked.object_content
        for root, ids in list(self._announced.items()):
            if set(ids) <= self.pushed.keys():
                parts = {key: self.pushed[key] for key in ids}
                reply = inflate_object_from_contents(root, parts)
                assert isinstance(reply, Message)
                self.replies.append(reply)
                del self._announced[root]
        return message_pb2.PushObjectResponse(stored=True)
