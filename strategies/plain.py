"""Plain arrays both ways: the inner strategy's own traffic, checked and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import CodecError, Layout, difference
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.contract.layout import Array, Arrays, other_shape
from flwr_caesar.codec.contract.non_finite import require_none_new
from flwr_caesar.codec.contract.update import change_of_others, length
from flwr_caesar.flower import arrays_in
from flwr_caesar.sync.ledger import Checkpoint
from flwr_caesar.sync.ledger_api import Head, LedgerStore
from flwr_caesar.sync.memory import MemoryLedger
from flwr_caesar.sync.sources import Sources
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import message_nbytes, record_to_arrays

from .charge import Work
from .exchange import Exchange, Opened, others
from .phase import Phase, Reply, Request

_NPY_HEADER_MAX = 4096


class PlainExchange(Exchange):
    """Send what the inner strategy sends, and check what comes back.

    Devices need no mod. With a ledger, the model and the inner strategy's state are
    kept in it after each round; devices have no part in that.

    Parameters
    ----------
    inner : Strategy
        The user's strategy.
    sources : Sources
        See `WrapperOptions`.
    """

    def __init__(self, inner: Strategy, *, sources: Sources) -> None:
        super().__init__(inner)
        self._sources = sources
        self._ledger: LedgerStore = MemoryLedger()
        self._head: Head | None = None
        self._arrays: Arrays = {}

    def attach(self, ledger: LedgerStore) -> None:
        """See `Exchange.attach`."""
        self._ledger, self._head = ledger, ledger.head()

    def begin(self, model: Arrays) -> Arrays:
        """See `Exchange.begin`."""
        self.layout = Layout.of(model)
        return model

    def open(self, phase: Phase, messages: Sequence[Message]) -> Sequence[Message]:
        """See `Exchange.open`."""
        if not messages:
            return messages
        keys, model = self.model_of(messages)
        self._arrays = record_to_arrays(model)
        phase.layout = self.layout
        for message, key in zip(messages, keys, strict=True):
            node_id = message.metadata.dst_node_id
            phase.requests[node_id] = Request(
                node_id,
                key,
                self._arrays,
                others(message.content, key),
                message_nbytes(message.content),
                Work.of(message.content),
            )
        return messages

    def accept(self, phase: Phase, node_id: int, message: Message) -> Opened:
        """See `Exchange.accept`."""
        request = phase.requests[node_id]
        content = message.content.copy()
        weight = self.weight_of(phase, content)
        reply = Reply(node_id, message, content, weight=weight, source=message.content)
        if not phase.is_train:
            return Opened(reply)
        names = list(arrays_in(content))
        if not names:
            raise CodecError("reply has no ArrayRecord")
        if len(names) > 1 and request.key not in names:
            raise CodecError(f"none of the ArrayRecords is named {request.key!r}")
        reply.key = names[0] if len(names) == 1 else request.key
        reply.base = request.sent
        del content[reply.key]
        return Opened(reply, partial(self._decode, phase, reply))

    def _decode(self, phase: Phase, reply: Reply) -> None:
        reply.update = self.decode_again(phase, reply)
        reply.length = length(reply.update)
        reply.counted = change_of_others(reply.update, reply.base)

    def decode_again(self, phase: Phase, reply: Reply) -> dict[str, Array]:
        """See `Exchange.decode_again`."""
        assert reply.source is not None
        sent = phase.requests[reply.node_id].sent
        arrays = {}
        for name, array in arrays_in(reply.source)[reply.key].items():
            if name not in sent:
                raise CodecError(f"reply has a tensor {name!r} that was not sent")
            if len(array.data) > 2 * sent[name].nbytes + _NPY_HEADER_MAX:
                raise CodecError(f"tensor {name!r} is larger than the model's")
            found = record_to_arrays(ArrayRecord({name: array}))[name]
            if found.shape != sent[name].shape:
                raise CodecError(other_shape(name, found.shape, sent[name].shape))
            arrays[name] = found
        require_none_new(arrays, sent)
        return difference(arrays, sent)

    def publish(self, phase: Phase, made: ArrayRecord) -> ArrayRecord:
        """See `Exchange.publish`."""
        require_none_new(record_to_arrays(made), self._arrays)
        return made

    def close(
        self,
        phase: Phase,
        model: ArrayRecord | None,
        *,
        inner: StrategyState | None,
        wrapper: StrategyState | None,
    ) -> None:
        """See `Exchange.close`."""
        if model is None:
            return
        arrays = phase.model
        version = phase.server_round, model_digest(arrays)
        if self._head is None:
            lineage, now = self._sources.new_id(), self._sources.now()
            self._head = Head(lineage, now, 0, version)
        self._head = replace(self._head, phase=self._head.phase + 1, version=version)
        self._ledger.commit(
            self._head,
            checkpoint=Checkpoint(phase.server_round, arrays, inner, wrapper),
        )
