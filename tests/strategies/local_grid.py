"""A Grid that runs a ClientApp in this process, and can tamper with its replies."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from flwr_caesar.runner.inline import InlineGrid

Tamper = Callable[[Message, int], Message | None]


class LocalGrid(InlineGrid):
    """An `InlineGrid` that works at once, and keeps what crossed it.

    `sent_bytes` has the size of each request, metadata and all.

    Parameters
    ----------
    app, num_nodes
        See `InlineGrid`.
    tamper : callable, optional
        Given each reply and its node; returns what arrives instead, `None` for nothing.
    """

    def __init__(
        self, app: ClientApp, num_nodes: int, *, tamper: Tamper | None = None
    ) -> None:
        super().__init__(app, num_nodes)
        self.tamper = tamper
        self.sent: list[tuple[str, RecordDict]] = []
        self.received: list[tuple[str, RecordDict]] = []
        self.sent_bytes: list[int] = []
        self._replies: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            content = RecordDict(dict(message.content.items()))
            self.sent.append((message.metadata.message_type, content))
            (message_id,) = super().push_messages([message])
            self.sent_bytes.append(_wire_bytes(self._waiting[message_id]))
            ids.append(message_id)
            reply: Message | None
            (reply,) = super().pull_messages([message_id])
            if self.tamper is not None:
                reply = self.tamper(reply, message.metadata.dst_node_id)
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


def _wire_bytes(message: Message) -> int:
    """Return the bytes of all objects that Flower pushes for a message."""
    objects = get_all_nested_objects(message).values()
    return sum(len(part.deflate()) for part in objects)
