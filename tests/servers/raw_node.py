"""A node that speaks Flower's Fleet protocol itself, and says what it likes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors.http.runtime_version import (
    RuntimeVersionHttpInterceptor,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from httpx import HTTPError

from flwr_caesar.flower import readdress

_HEARTBEAT = 60.0
_POLL = 0.1


class RawNode:
    """One node on loopback, registered and alive while it is entered.

    Parameters
    ----------
    port : int
        Of the SuperLink.

    Attributes
    ----------
    node_id : int
        Flower's.
    errors : list of str
        What went wrong while it served.
    """

    def __init__(self, port: int) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self._public = public_key_to_bytes(key.public_key())
        self._client = FleetHttpClient(
            f"http://127.0.0.1:{port}",
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
            ],
        )
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.node_id = 0
        self.errors: list[str] = []

    def __enter__(self) -> RawNode:
        self._client.RegisterNode(RegisterNodeFleetRequest(public_key=self._public))
        request = ActivateNodeRequest(
            public_key=self._public, heartbeat_interval=_HEARTBEAT
        )
        self.node_id = self._client.ActivateNode(request).node_id
        self._node = Node(node_id=self.node_id)
        self._start(self._beat)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        with suppress(HTTPError):  # it is inactive already if a heartbeat was late
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.node_id))
        self._client.close()

    def serve(self, answer: Callable[[RawNode, Message], None]) -> None:
        """Let a function answer each message, in a thread, until the node leaves."""

        def loop() -> None:
            while not self._over.is_set():
                try:
                    request = self.pull()
                    if request is None:
                        self._over.wait(_POLL)
                    else:
                        answer(self, request)
                except Exception as err:  # the node goes on, and the test says why
                    self.errors.append(f"{type(err).__name__}: {err}"[:500])

        self._start(loop)

    def pull(self) -> Message | None:
        """Return a message for this node, if there is one."""
        found = self._client.PullMessages(PullMessagesRequest(node=self._node))
        if not found.messages_list:
            return None
        run_id = found.messages_list[0].metadata.run_id
        (tree,) = found.message_object_trees
        parts = [part.object_id for part in iterate_object_tree(tree)]
        contents = {part: self._pull_object(run_id, part) for part in parts}
        self._client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._node, run_id=run_id, message_object_id=tree.object_id
            )
        )
        message = inflate_object_from_contents(tree.object_id, contents)
        assert isinstance(message, Message)
        readdress(message, message_id=tree.object_id)
        return message

    def reply(self, request: Message, said: RecordDict | Error) -> None:
        """Answer a message as Flower does."""
        self.push(*self.announce(self.message(request, said)))

    def message(self, request: Message, said: RecordDict | Error) -> Message:
        """Return an answer that may be changed before it is announced."""
        return Message(said, reply_to=request)

    def announce(
        self, message: Message, tree: ObjectTree | None = None
    ) -> tuple[Message, str]:
        """Say that an answer is there; return it and Flower's name for the upload."""
        readdress(message, message_id=message.object_id)
        bare = (
            remove_content_from_message(message) if message.has_content() else message
        )
        told = self._client.PushMessages(
            PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(bare)],
                message_object_trees=[tree or get_object_tree(message)],
            )
        )
        return message, told.session_id

    def push(
        self,
        message: Message,
        session_id: str,
        *,
        most: int | None = None,
        seconds_between: float = 0.0,
        change: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """Upload the parts of an answer, or only some of them, or others."""
        parts = list(get_all_nested_objects(message).items())
        for object_id, part in parts[:most]:
            self._client.PushObject(
                PushObjectRequest(
                    node=self._node,
                    run_id=message.metadata.run_id,
                    object_id=object_id,
                    object_content=change(part.deflate()),
                    session_id=session_id,
                )
            )
            self._over.wait(seconds_between)

    def _pull_object(self, run_id: int, object_id: str) -> bytes:
        request = PullObjectRequest(node=self._node, run_id=run_id, object_id=object_id)
        while not self._over.is_set():
            found = self._client.PullObject(request)
            if found.object_available:
                return found.object_content
            time.sleep(_POLL)
        raise RuntimeError("the node leaves")

    def _beat(self) -> None:
        request = SendNodeHeartbeatRequest(
            node=self._node, heartbeat_interval=_HEARTBEAT
        )
        while not self._over.wait(_HEARTBEAT / 3):
            with suppress(HTTPError):  # on a busy machine one may be late
                self._client.SendNodeHeartbeat(request)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._threads.append(thread)
