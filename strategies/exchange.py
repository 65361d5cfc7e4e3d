"""How messages and replies travel: what both kinds of exchange have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import CodecError, Layout
from flwr_caesar.codec.contract.layout import (
    FLOAT_DTYPES,
    Array,
    Arrays,
    dtype_name,
    first_difference,
    to_dtype,
)
from flwr_caesar.codec.contract.update import nonnegative
from flwr_caesar.flower import arrays_in
from flwr_caesar.frozen import frozen
from flwr_caesar.sync.ledger import Checkpoint
from flwr_caesar.sync.ledger_api import LedgerStore
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.telemetry import Telemetry

from .inner import needs_weights
from .metrics import read_weight
from .nested import nested, weight_key
from .phase import Device, Outcome, Phase, Reply, Request


class NotNowError(CodecError):
    """A reply that is in order and carries nothing to use, such as a resync.

    Parameters
    ----------
    reason : str
        In words.
    telemetry : Telemetry, optional
        What the device measured all the same.
    """

    def __init__(self, reason: str, telemetry: Telemetry | None = None) -> None:
        super().__init__(reason)
        self.telemetry = telemetry


@frozen
class Opened:
    """A reply that counts if it can be decoded; both steps may raise CodecError.

    Parameters
    ----------
    reply : Reply
        Complete after both.
    decode : callable, optional
        Takes time and changes nothing but the reply, so that it may run in a thread of
        its own.
    finish : callable, optional
        Is given what `decode` returned, of one reply after the other in the order in
        which they were accepted.
    """

    reply: Reply
    decode: Callable[[], Any] | None = None
    finish: Callable[[Any], None] | None = None


class Exchange(ABC):
    """Turns plans into messages, and messages into replies or refusals.

    It lives as long as the strategy. What belongs to a phase is in the `Phase`.

    Parameters
    ----------
    inner : Strategy
        The user's strategy.

    Attributes
    ----------
    layout : Layout, optional
        Tensors of the model; `None` before the first.
    model_key : str
        Name that the inner strategy gives the model.
    """

    def __init__(self, inner: Strategy) -> None:
        self.layout: Layout | None = None
        self._weight_key = weight_key(inner)
        self._weighed = {
            kind: needs_weights(inner, f"aggregate_{kind}")
            for kind in ("train", "evaluate")
        }
        keys = (getattr(each, "arrayrecord_key", "") for each in nested(inner))
        self.model_key = next(filter(None, keys), "arrays")

    @abstractmethod
    def attach(self, ledger: LedgerStore) -> None:
        """Begin with a ledger, before anything else."""

    def begin(self, model: Arrays) -> Arrays:
        """Return the model to start a history from, near to the one given."""
        return model

    @abstractmethod
    def open(self, phase: Phase, messages: Sequence[Message]) -> Sequence[Message]:
        """Pack the messages of a phase, and put their requests into it.

        Raises
        ------
        ValueError
            If they are not such as can be packed, with what to do instead.
        """

    @abstractmethod
    def accept(self, phase: Phase, node_id: int, message: Message) -> Opened:
        """Check a reply before it is decoded.

        Raises
        ------
        CodecError
            If it cannot be used.
        """

    @abstractmethod
    def decode_again(self, phase: Phase, reply: Reply) -> dict[str, Array]:
        """Return the update of a reply whose `source` is kept, once more."""

    @abstractmethod
    def publish(self, phase: Phase, made: ArrayRecord) -> ArrayRecord:
        """Take the model that a round ends with; return it as the rounds go on.

        Raises
        ------
        CodecError
            If devices cannot be sent it; then nothing is changed.
        """

    @abstractmethod
    def close(
        self,
        phase: Phase,
        model: ArrayRecord | None,
        *,
        inner: StrategyState | None,
        wrapper: StrategyState | None,
    ) -> None:
        """Commit a phase, after which the model is `model`; `None`: as before.

        `inner` and `wrapper` are what the inner strategy and the method learned; `None`
        without a checkpoint.
        """

    def withdraw(self, node_id: int, reason: str) -> None:  # noqa: B027
        """Learn that a reply, read or not, is not used."""

    def present(self, phase: Phase) -> Collection[Device]:
        """Return the devices that are at the nodes asked, by what they said."""
        return ()

    def note(self, outcome: Outcome) -> None:  # noqa: B027
        """Take what the ledger is to remember with the next commit."""

    def notes(self) -> Sequence[str]:
        """Return what limits cost so far, in whole sentences."""
        return ()

    def state(self) -> StrategyState:
        """Return what a restarted server needs."""
        return StrategyState()

    def restore(self, checkpoint: Checkpoint, ledger: LedgerStore) -> None:  # noqa: B027
        """Go on from what `close` committed, but for the inner strategy's part."""

    def weight_of(self, phase: Phase, content: RecordDict) -> float:
        """Return the weight of a reply; see `read_weight`."""
        if phase.is_extra:
            return 0.0
        return read_weight(
            content, self._weight_key, required=self._weighed[phase.kind]
        )

    def model_of(self, messages: Sequence[Message]) -> tuple[list[str], ArrayRecord]:
        """Return which ArrayRecord of each message is the model, and that model.

        Raises
        ------
        ValueError
            If that cannot be told, or they carry different ones.
        """
        keys = [self.model_record(message.content) for message in messages]
        models = [
            arrays_in(message.content)[key]
            for message, key in zip(messages, keys, strict=True)
        ]
        return keys, same_model(models)

    def model_record(self, content: RecordDict) -> str:
        """Return which ArrayRecord of a message is the model.

        Raises
        ------
        ValueError
            If that cannot be told.
        """
        names = list(arrays_in(content))
        if len(names) == 1:
            return names[0]
        if self.model_key in names:
            return self.model_key
        if not names:
            raise ValueError(
                "the inner strategy sends a message without an ArrayRecord; "
                "compression sends the model in each"
            )
        raise ValueError(
            f"the inner strategy sends the ArrayRecords {', '.join(sorted(names))}, "
            f"and none is named {self.model_key!r} (its arrayrecord_key): "
            "give the model that name"
        )


def most_frame_bytes(layout: Layout) -> int:
    """Return the most bytes that an upload of a model may have, whatever its codec."""
    return 2 * layout.nbytes + (1 << 16)


def most_reply_bytes(request: Request) -> int:
    """Return the most bytes that a reply may hold, its arrays packed or not.

    Beside the model it may hold whatever the app adds, within 16 MB or three times
    what it was sent.
    """
    return 4 * request.raw_bytes + (16 << 20)


def require_size(request: Request, nbytes: int) -> None:
    """Require that a reply is not much larger than what was sent, before it is read.

    Raises
    ------
    CodecError
        If it is.
    """
    most = most_reply_bytes(request)
    if nbytes > most:
        raise CodecError(
            f"the reply has {nbytes / 1e6:.0f} MB, at most {most / 1e6:.0f} are "
            "expected of this model"
        )


def require_one_message_each(messages: Sequence[Message], inner: str) -> None:
    """Refuse two messages to one node in a phase.

    Raises
    ------
    ValueError
        If there are two.
    """
    seen: set[int] = set()
    for message in messages:
        node_id = message.metadata.dst_node_id
        if node_id in seen:
            raise ValueError(
                f"{inner} sends two messages to node {node_id} in one phase; one is "
                "supported"
            )
        seen.add(node_id)


def same_model(records: Sequence[ArrayRecord]) -> ArrayRecord:
    """Return the model that all messages carry, be it built anew for each.

    Raises
    ------
    ValueError
        If they carry different ones.
    """
    first = records[0]
    for record in {id(record): record for record in records}.values():
        if record is not first and not _equal(first, record):
            raise ValueError(
                "the inner strategy sends different models to different devices in one "
                "phase; compression sends one. Send what differs in an ArrayRecord of "
                "another name, or run it without compression"
            )
    return first


def is_same_model(known: ArrayRecord | None, model: ArrayRecord) -> bool:
    """Whether a model is one that is known, be it built anew."""
    return known is model or (known is not None and _equal(known, model))


def _equal(a: ArrayRecord, b: ArrayRecord) -> bool:
    return list(a) == list(b) and all(
        (x.dtype, tuple(x.shape), x.stype, x.data)
        == (y.dtype, tuple(y.shape), y.stype, y.data)
        for x, y in zip(a.values(), b.values(), strict=True)
    )


def cast_like(layout: Layout, arrays: Arrays) -> dict[str, Array]:
    """Return arrays in the dtypes of the first model; integers are rounded.

    FedAvg makes float64 of integer counters, and adaptive optimisers of float16. On the
    wire a model keeps the tensors it began with, so that every version and every
    update of a history has one layout.

    Raises
    ------
    ValueError
        If the tensors differ in name or shape.
    """
    if not layout.same_shapes(Layout.of(arrays)):
        raise ValueError(
            "the aggregated model has other tensors than the initial one "
            f"({first_difference(layout, Layout.of(arrays))}); it must keep their "
            "names, order and shapes"
        )
    cast = {}
    for spec in layout.tensors:
        array, dtype = arrays[spec.name], to_dtype(spec.dtype)
        if array.dtype != dtype:
            if not spec.is_float:
                array = np.rint(array)
            with np.errstate(over="ignore", invalid="ignore"):
                array = np.asarray(array).astype(dtype)
        cast[spec.name] = array
    return cast


def nonnegative_sum(
    base: Arrays, update: Arrays, names: Collection[str] | None = None
) -> frozenset[str]:
    """Return the tensors of which neither base nor base plus update is negative.

    Parameters
    ----------
    base, update : mapping of str to ndarray
        Of equal shapes.
    names : collection of str, optional
        `nonnegative` of the base, where it is known.
    """
    return frozenset(
        name
        for name in (nonnegative(base) if names is None else names)
        if dtype_name(update[name].dtype) in FLOAT_DTYPES
        and bool((update[name] >= -base[name].astype(update[name].dtype)).all())
    )


def others(content: RecordDict, key: str) -> dict[str, ArrayRecord]:
    """Return the ArrayRecords of a content but one."""
    return {n: r for n, r in arrays_in(content).items() if n != key}


def zeros_like(model: Arrays) -> dict[str, Array]:
    """Return a model of zeros that takes no memory."""
    return {
        name: np.broadcast_to(np.zeros((), array.dtype), array.shape)
        for name, array in model.items()
    }
