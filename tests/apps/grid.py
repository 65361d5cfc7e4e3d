"""A grid in this process that counts what Flower would send, all records of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from flwr_caesar.runner.inline import InlineGrid

UP, DOWN = "up", "down"


class CountingGrid(InlineGrid):
    """An `InlineGrid` that keeps the size of each message, and the errors.

    Attributes
    ----------
    sizes : mapping of (str, str) to list of int
        By message type and direction, the bytes of each content in the order sent.
    errors : list of str
        Reasons of the replies that were errors.
    """

    def __init__(self, app: ClientApp, num_nodes: int) -> None:
        super().__init__(app, num_nodes)
        self.sizes: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.errors: list[str] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        listed = list(messages)
        for message in listed:
            kind = message.metadata.message_type
            self.sizes[kind, DOWN].append(content_nbytes(message.content))
        return super().push_messages(listed)

    def _reply(self, message_id: str, message: Message) -> Message:
        kind = message.metadata.message_type
        reply = super()._reply(message_id, message)
        if reply.has_error():
            self.errors.append(reply.error.reason)
        else:
            self.sizes[kind, UP].append(content_nbytes(reply.content))
        return reply

    def total(self, direction: str) -> int:
        """Return the bytes of all messages in a direction."""
        return sum(sum(s) for (_, way), s in self.sizes.items() if way == direction)

    def messages(self) -> int:
        """Return how many messages there were, both ways."""
        return sum(len(sizes) for sizes in self.sizes.values())


def content_nbytes(content: RecordDict) -> int:
    """Bytes of a content, all its records, as the objects that Flower pushes."""
    objects = get_all_nested_objects(content).values()
    return sum(len(part.deflate()) for part in objects)
