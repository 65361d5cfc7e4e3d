"""A federation in one process: for experiments that must be quick and repeatable.

The same ServerApp and ClientApp, and the same messages in their wire form, as in
Flower's own engines; devices work one after another, and node ids are 1, 2, …, so that
a seed names a whole run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, MutableMapping
from importlib import import_module
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from flwr_caesar.flower import NodeInfo, Run, act_in_run, readdress
from flwr_caesar.runner.own_app import components, whole_run_config

_RUN_ID = 1
_APP_FAILED = 2


class Contexts(MutableMapping[int, Context]):
    """The Contexts of nodes ``1 … num_nodes``, each made when it is first asked for.

    Parameters
    ----------
    num_nodes : int
        How many there are.
    run_config : mapping
        Of the run.
    """

    def __init__(self, num_nodes: int, run_config: dict[str, Any]) -> None:
        self._num_nodes = num_nodes
        self._run_config = run_config
        self._made: dict[int, Context | None] = dict.fromkeys(range(1, num_nodes + 1))

    def __getitem__(self, node: int) -> Context:
        """Return the Context of a node."""
        context = self._made[node]
        if context is None:
            config: Any = {
                "partition-id": node - 1,
                "num-partitions": self._num_nodes,
                "state-dir": "context",
            }
            context = Context(_RUN_ID, node, config, RecordDict(), self._run_config)
            self._made[node] = context
        return context

    def __setitem__(self, node: int, context: Context) -> None:
        """Put another Context in its place."""
        self._made[node] = context

    def __delitem__(self, node: int) -> None:
        """Take a node away."""
        del self._made[node]

    def __iter__(self) -> Iterator[int]:
        """Yield the nodes."""
        return iter(self._made)

    def __len__(self) -> int:
        """Return how many nodes there are."""
        return len(self._made)


class InlineGrid(Grid):
    """Nodes ``1 … num_nodes`` of one ClientApp, each with a Context of its own.

    A message is worked on when its reply is pulled.

    Parameters
    ----------
    app : ClientApp
        What the nodes run.
    num_nodes : int
        How many there are; node `i` has the partition id ``i - 1``.
    run_config : mapping, optional
        Of the run.

    Attributes
    ----------
    inline : bool
        True: pulls are work, and must come one after another; see `Pulls`.
    """

    inline = True

    def __init__(
        self, app: ClientApp, num_nodes: int, run_config: dict[str, Any] | None = None
    ) -> None:
        act_in_run(_RUN_ID)
        self.app = app
        self.contexts = Contexts(num_nodes, run_config or {})
        self._ids = itertools.count(1)
        self._waiting: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> Run:
        """The run."""
        return Run.create_empty(run_id=_RUN_ID)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message."""
        return Message(
            content,
            dst_node_id=dst_node_id,
            message_type=message_type,
            ttl=ttl,
            group_id=group_id,
        )

    def get_node_ids(self) -> Iterable[int]:
        """Get node ids."""
        return list(self.contexts)

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Get nodes."""
        return [NodeInfo(node_id=node) for node in self.contexts]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages."""
        ids = []
        for message in messages:
            message_id = str(next(self._ids))
            # Nothing is shared with the sender: each message passes its wire form.
            copy = Message(
                through_the_wire(message.content),
                dst_node_id=message.metadata.dst_node_id,
                message_type=message.metadata.message_type,
            )
            readdress(copy, message_id=message_id)
            self._waiting[message_id] = copy
            ids.append(message_id)
        return ids

    def pull_messages(
        self,
        message_ids: Iterable[str] | None = None,
        *,
        reply_to_message_ids: Iterable[str] | None = None,
    ) -> Iterable[Message]:
        """Work on messages and yield their replies.

        Parameters
        ----------
        message_ids : iterable of str, optional
            Of the requests; all that wait, if none are named.
        reply_to_message_ids : iterable of str, optional
            The same, as Flower names it from 1.43 on.
        """
        named = message_ids if reply_to_message_ids is None else reply_to_message_ids
        for message_id in list(self._waiting) if named is None else named:
            message = self._waiting.pop(message_id, None)
            if message is not None:
                yield self._reply(message_id, message)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and return their replies."""
        return list(self.pull_messages(self.push_messages(messages)))

    def _reply(self, message_id: str, message: Message) -> Message:
        node = message.metadata.dst_node_id
        try:
            reply = self.app(message, self.contexts[node])
        except Exception as err:
            # As Flower does with an app that fails: the server is told why.
            reply = Message(Error(_APP_FAILED, str(err)), reply_to=message)
        readdress(reply, src_node_id=node, reply_to_message_id=message_id)
        return reply


def through_the_wire(content: RecordDict) -> RecordDict:
    """Return a copy of a content by way of the bytes that Flower would send."""
    copy: RecordDict = _copied(content)
    return copy


def _copied(part: Any) -> Any:
    children = part.children
    copies = {k: _copied(v) for k, v in children.items()} if children else None
    return type(part).inflate(part.deflate(), copies)


def main(arguments: list[str] | None = None) -> None:
    """Run the reference app, or one of the user's own, as the two arguments say."""
    parser = argparse.ArgumentParser(prog="python -m flwr_caesar.runner.inline")
    parser.add_argument("spec", type=Path, help="whole configuration, JSON")
    parser.add_argument("output", type=Path, help="folder for results")
    given = parser.parse_args(arguments)
    text = given.spec.read_text("utf-8")
    spec = json.loads(text)
    if "app" in spec:
        folder = Path(spec["app"]).resolve()
        run_config = whole_run_config(spec)
        names = components(spec)
    else:
        folder = _reference_app()
        run_config = {"spec": text, "overrides": "", "output-dir": str(given.output)}
        names = ("caesar_app.client_app:app", "caesar_app.server_app:app")
    sys.path.insert(0, str(folder))
    client, server = map(_component, names)
    grid = InlineGrid(client, spec["federation"]["num_supernodes"], run_config)
    server(
        grid,
        Context(
            run_id=_RUN_ID,
            node_id=0,
            node_config={},
            state=RecordDict(),
            run_config=run_config,
        ),
    )


def _reference_app() -> Path:
    from flwr_caesar.runner.apps import app_folder

    return app_folder()


def _component(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


if __name__ == "__main__":
    main()
