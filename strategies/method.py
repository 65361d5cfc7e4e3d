"""The server's half of a method."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import Codec, Layout, get_codec
from flwr_caesar.codec.contract.layout import Arrays
from flwr_caesar.plan.by_size import LARGE
from flwr_caesar.sync.state import UPDATE_PAYLOAD
from flwr_caesar.sync.strategy_state import StrategyState

from .downlink import Downlink
from .downlinks import get_downlink
from .machine_memory import remembered_bytes
from .phase import Device, DevicePlan, Outcome, Phase, Reply
from .uplink_memory import UplinkMemory


class ServerMethod:
    """How models go down, how uploads come up, and who is asked for what.

    This one asks all devices for the same; a method of one's own overrides what it
    decides otherwise. A method is handed what it needs and returns what it decided:
    it changes no argument, and what it learns of a device it returns as facts, which
    the ledger keeps with the device. See docs/extending.md.

    Parameters
    ----------
    downlink : Downlink, optional
        How the model goes down; by default the whole of it, exactly.
    upload : Codec or callable, optional
        Codec of the uploads, or what returns it for a model of so many floating-point
        elements; exact by default.
    error_feedback : bool
        Whether devices keep what the codec leaves out.
    payload : {"update", "model"}
        Whether devices encode their update or their model.
    uniform_weights : bool
        Whether all replies weigh the same.
    upload_memory : int, optional
        Most bytes that the server spends on what an upload codec remembers of devices.
        A device that it has forgotten sends its next update without prediction. `None`:
        an eighth of what this process may use.

    Attributes
    ----------
    counts_nodes : bool
        Of the class: whether a training phase is to say how many nodes there are,
        `Phase.federation`, for which the SuperLink is asked.
    """

    counts_nodes = False

    def __init__(
        self,
        *,
        downlink: Downlink | None = None,
        upload: Codec | Callable[[int], Codec] | None = None,
        error_feedback: bool = False,
        payload: str = UPDATE_PAYLOAD,
        uniform_weights: bool = False,
        upload_memory: int | None = 0,
    ) -> None:
        self.downlink = downlink or get_downlink("whole")
        self._by_size = upload if callable(upload) else None
        # That of a large model, which also refuses settings that no model may have.
        self.upload = (
            upload(LARGE) if callable(upload) else upload or get_codec("dense")
        )
        self.error_feedback = error_feedback
        self.payload = payload
        self.uniform_weights = uniform_weights
        self.upload_memory = (
            remembered_bytes() if upload_memory is None else upload_memory
        )

    def notes(self) -> Sequence[str]:
        """Return what limits cost, in whole sentences; nothing if none is met."""
        return self.downlink.notes()

    @property
    def keeps_mean(self) -> bool:
        """Whether `after` needs the mean of the replies, a model in memory."""
        return False

    def upload_for(self, layout: Layout | None) -> Codec:
        """Return the codec of the uploads of a model.

        Parameters
        ----------
        layout : Layout, optional
            Tensors of the model; `None` if it is not known yet, as if it were large.
        """
        if self._by_size is None or layout is None:
            return self.upload
        return self._by_size(layout.num_params)

    def uplink_memory(self) -> UplinkMemory:
        """Return what the server remembers of uploads: of each device on its own."""
        return UplinkMemory(self.upload_memory)

    def require(self, inner: Strategy) -> None:
        """Refuse an inner strategy that this method cannot work around.

        Raises
        ------
        ValueError
            With what to do instead.
        """

    def summary(self, layout: Layout | None) -> Sequence[str]:
        """Return lines for the log that say what the method does.

        Parameters
        ----------
        layout : Layout, optional
            Tensors of the model; `None` if it is not known yet.
        """
        feedback = " with error feedback" if self.error_feedback else ""
        return (
            f"Download: {self.downlink}",
            f"Upload: {self.upload_for(layout)}{feedback}",
        )

    def plan(self, phase: Phase, devices: Sequence[Device]) -> Mapping[int, DevicePlan]:
        """Return what each device is to do, by node id.

        Parameters
        ----------
        phase : Phase
            That is being opened; it has no requests yet.
        devices : sequence of Device
            Whom the inner strategy, or an extra phase, chose.
        """
        upload = self.upload_for(phase.layout)
        return {device.node_id: DevicePlan(upload) for device in devices}

    def check(self, reply: Reply) -> None:
        """Refuse a reply whose update is decoded but must not be used.

        Raises
        ------
        CodecError
            With the reason.
        """

    def finish(self, made: Arrays) -> Arrays:
        """Return the model that the next round starts from.

        Parameters
        ----------
        made : mapping of str to ndarray
            What the inner strategy made of the replies, in the dtypes of the model.
        """
        return made

    def after(self, phase: Phase, present: Collection[Device]) -> Outcome:
        """Learn from a phase, before it is committed.

        Parameters
        ----------
        phase : Phase
            With its replies, records, mean and model.
        present : collection of Device
            The devices that are at the nodes asked, by what they said: their rows are
            those after this phase, their headers those of the requests.
        """
        return Outcome()

    def state(self) -> StrategyState:
        """Return what a restarted server needs of this method and its downlink."""
        return self.downlink.state()

    def restore(self, state: StrategyState, facts: Mapping[str, bytes]) -> None:
        """Go on from what `state` returned.

        Parameters
        ----------
        state : StrategyState
            What `state` returned.
        facts : mapping of str to bytes
            What the ledger has, by device.

        Raises
        ------
        DamagedStateError
            If it is not such a state.
        """
        self.downlink.restore(state)
