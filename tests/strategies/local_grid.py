"""A Grid that runs a ClientApp in this process, and can tamper with its replies."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Tamper = Callable[[Message, int], Message | None]


class LocalGrid(Grid):
    """Nodes ``1 … num_nodes``, each with a Context of its own.

    Messages are copied through their wire form, so nothing is shared by accident.
    `sent_bytes` has the size of each, metadata and all.
    """

    def __init__(
        self, app: ClientApp, num_nodes: int, *, tamper: Tamper | None = None
    ) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.app = app
        self.tamper = tamper
        self.contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={
                    "partition-id": node - 1,
                    "num-partitions": num_nodes,
                    "state-dir": "context",
                },
                state=RecordDict(),
                run_config={},
            )
            for node in range(1, num_nodes + 1)
        }
        self.sent: list[tuple[str, RecordDict]] = []
        self.received: list[tuple[str, RecordDict]] = []
        self.sent_bytes: list[int] = []
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None: ...

    @property
    def run(self) -> Run:
        return Run.create_empty(run_id=1)

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node) for node in self.contexts]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            message_id = f"{len(self.sent)}"
            ids.append(message_id)
            content = RecordDict(dict(message.content.items()))
            self.sent.append((message.metadata.message_type, content))
            copy = Message(
                _copied(message.content),
                dst_node_id=node,
                message_type=message.metadata.message_type,
            )
            copy.metadata.__dict__["_message_id"] = message_id
            self.sent_bytes.append(_wire_bytes(copy))
            reply: Message | None
            try:
                reply = self.app(copy, self.contexts[node])
            except Exception as err:
                reply = Message(Error(code=2, reason=str(err)), reply_to=copy)
            reply.metadata.__dict__["_src_node_id"] = node
            if self.tamper is not None:
                reply = self.tamper(reply, node)
            if reply is not None:
                reply.metadata.__dict__["_reply_to_message_id"] = message_id
                self._replies[message_id] = reply
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ready = [self._replies.pop(i) for i in message_ids if i in self._replies]
        ready.sort(key=lambda reply: reply.metadata.src_node_id)
        random.Random(0).shuffle(ready)
        for reply in ready:
            if reply.has_content():
                content = RecordDict(dict(reply.content.items()))
                self.received.append((reply.metadata.message_type, content))
        return ready

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(list(messages)))


def _wire_bytes(message: Message) -> int:
    """Return the bytes of all objects that Flower pushes for a message."""
    objects = get_all_nested_objects(message).values()
    return sum(len(part.deflate()) for part in objects)


def _copied(content: RecordDict) -> RecordDict:
    children = content.children
    assert children is not None
    flat = {}
    for record_id, record in children.items():
        flat[record_id] = _inflate(record)
    return RecordDict.inflate(content.deflate(), flat)


def _inflate(record):  # type: ignore[no-untyped-def]
    children = record.children
    parts = {k: _inflate(v) for k, v in children.items()} if children else None
    return type(record).inflate(record.deflate(), parts)
