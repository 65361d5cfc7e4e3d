"""One phase of a round: who was asked for what, and what came back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, Message, RecordDict

from flwr_caesar.codec import Codec
from flwr_caesar.codec.contract.layout import Array, Arrays, Layout
from flwr_caesar.codec.contract.strict_json import read_json
from flwr_caesar.frozen import frozen
from flwr_caesar.methods import Settings
from flwr_caesar.records import DeviceRecord
from flwr_caesar.sync.ledger_api import DeviceRow
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.transport import (
    EVALUATE,
    TRAIN,
    Abilities,
    DeviceReport,
    record_nbytes,
)

from .charge import Work


@frozen
class DevicePlan:
    """What one device is asked to do in a phase.

    Parameters
    ----------
    upload : Codec
        For its update.
    config : mapping
        What the app sees besides the inner strategy's configuration, such as
        ``"batch-size"`` and ``"local-steps"``.
    settings : Settings
        Of the device's half of the method.
    part : str
        Name of the device's half (`flwr_caesar.methods`); empty for the downlink's.
    ask_labels : bool
        Whether to ask for its label counts.
    call_app : bool
        Whether its app sees the message.
    use_memory : bool
        Whether its upload may be predicted from what both sides remember of it.
    records : mapping of str to ArrayRecord
        What its half of the method is sent beside the model; equal ones should be one
        object, which the SuperLink then stores once.
    """

    upload: Codec
    config: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    part: str = ""
    ask_labels: bool = False
    call_app: bool = True
    use_memory: bool = True
    records: Mapping[str, ArrayRecord] = field(default_factory=dict)


@frozen
class Device:
    """A device that is about to be asked.

    Parameters
    ----------
    node_id : int
        Where it is.
    header : DownloadHeader
        Of the request; its `device` is who the server believes to be there.
    row : DeviceRow, optional
        What the ledger has of it; `None` if it was never heard of.
    """

    node_id: int
    header: DownloadHeader
    row: DeviceRow | None

    @property
    def facts(self) -> bytes:
        """What the method noted of it; empty if nothing."""
        return self.row.facts if self.row else b""

    @property
    def can(self) -> Abilities | None:
        """What it said it can; `None` for one that never said so, and can all."""
        if self.row is None or not self.row.can:
            return None
        return Abilities.of(read_json(self.row.can))


@frozen
class Request:
    """What a device was sent.

    Parameters
    ----------
    node_id : int
        The node.
    key : str
        Name of the ArrayRecord that holds the model; empty if there is none.
    sent : mapping of str to ndarray
        The model.
    others : mapping of str to ArrayRecord
        The message's other ArrayRecords.
    bytes_down : int
        Bytes of arrays, and of our record, in the message.
    work : Work
        What it was asked to compute.
    plan : DevicePlan, optional
        What the method planned for it; `None` where plain arrays travel.
    device : Device, optional
        Whom the server believes to be there; likewise.
    """

    node_id: int
    key: str
    sent: Arrays
    others: Mapping[str, ArrayRecord]
    bytes_down: int
    work: Work
    plan: DevicePlan | None = None
    device: Device | None = None

    @property
    def model_bytes(self) -> int:
        """Bytes of the model, uncompressed."""
        return sum(array.nbytes for array in self.sent.values())

    @property
    def raw_bytes(self) -> int:
        """Bytes of all arrays of the message, uncompressed."""
        return self.model_bytes + sum(map(record_nbytes, self.others.values()))


@dataclass
class Reply:
    """A reply that counts so far.

    Parameters
    ----------
    node_id : int
        Where it comes from.
    message : Message
        As it came, but for its content.
    content : RecordDict
        Its content without our record, and without the model.
    weight : float
        As the device said; 0 where there is none.
    report : DeviceReport
        What the device said of itself.
    key : str
        Name of the ArrayRecord with the model in the reply; empty if it has none.
    update : mapping of str to ndarray
        What was decoded, relative to `base`; empty outside of training.
    base : mapping of str to ndarray
        What `update` is relative to.
    source : RecordDict, optional
        The content as it came, from which the update can be decoded again; `None` if
        it is not kept.
    length : float
        Of the update, relative to the model that was sent.
    counted : float
        By how much its tensors changed that are not floating point, likewise.
    nonnegative : frozenset of str
        Tensors that have no negative element in the model that was trained.
    """

    node_id: int
    message: Message
    content: RecordDict
    weight: float = 0.0
    report: DeviceReport = field(default_factory=DeviceReport)
    key: str = ""
    update: dict[str, Array] = field(default_factory=dict)
    base: Arrays = field(default_factory=dict)
    source: RecordDict | None = None
    length: float = 0.0
    counted: float = 0.0
    nonnegative: frozenset[str] = frozenset()


@dataclass
class Phase:
    """A phase from its opening to its close.

    Parameters
    ----------
    kind : str
        ``"train"``, ``"evaluate"``, or the name of an extra phase of a method.
    server_round : int
        Counted from the first round of the history.
    attempt : int
        Of an extra phase, counted from 1.
    federation : int
        Nodes that there are, whether they are asked or not; 0 if that is not known.

    Attributes
    ----------
    layout : Layout, optional
        Tensors of the model.
    requests : dict of int to Request
        By node id.
    replies : dict of int to Reply
        Those that count, by node id.
    records : dict of int to DeviceRecord
        What each device cost.
    faults : dict of int to str
        Why the replies of some nodes were refused, by node id.
    longest : float
        Length of the longest update that is believed; 0 if that is not known yet.
    too_long : set of int
        Nodes whose updates were refused for their length.
    doubtful : set of int
        Nodes whose replies do not count for a quorum: they were refused, or their
        updates are longer than `longest`, which may be in order beside the others.
    mean : mapping of str to ndarray
        Mean of the replies, where the inner strategy takes one and the method keeps it;
        empty before.
    model : mapping of str to ndarray
        What the phase ends with; empty if the model stays.
    """

    kind: str
    server_round: int
    attempt: int = 1
    federation: int = 0
    layout: Layout | None = None
    requests: dict[int, Request] = field(default_factory=dict)
    replies: dict[int, Reply] = field(default_factory=dict)
    records: dict[int, DeviceRecord] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    longest: float = 0.0
    too_long: set[int] = field(default_factory=set)
    doubtful: set[int] = field(default_factory=set)
    mean: Arrays = field(default_factory=dict)
    model: Arrays = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    seconds_packing: float = 0.0

    @property
    def is_train(self) -> bool:
        """Whether updates are asked for."""
        return self.kind == TRAIN

    @property
    def is_extra(self) -> bool:
        """Whether it is neither training nor evaluation."""
        return self.kind not in (TRAIN, EVALUATE)

    @property
    def nonnegative(self) -> frozenset[str]:
        """Tensors without a negative element in any model of its replies."""
        found = [reply.nonnegative for reply in self.replies.values()]
        return frozenset.intersection(*found) if found else frozenset()


@frozen
class ExtraPhase:
    """A phase that a method runs of its own, of which no app learns.

    Parameters
    ----------
    kind : str
        Its name.
    node_ids : tuple of int
        Whom to ask.
    records : mapping of str to ArrayRecord
        What they are sent beside the model.
    attempt : int
        Counted from 1.
    """

    kind: str
    node_ids: tuple[int, ...]
    records: Mapping[str, ArrayRecord] = field(default_factory=dict)
    attempt: int = 1


@frozen
class Outcome:
    """What a method makes of a phase, before it is committed.

    Parameters
    ----------
    facts : mapping of int to bytes
        What the ledger is to remember of the devices at these nodes.
    extra : ExtraPhase, optional
        What is to be done after the commit.
    """

    facts: Mapping[int, bytes] = field(default_factory=dict)
    extra: ExtraPhase | None = None
