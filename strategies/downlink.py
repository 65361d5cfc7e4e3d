"""How a model travels down: what is published, and the frame for each device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord

from flwr_caesar.codec.contract.layout import Array, Layout
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.state import Version
from flwr_caesar.sync.strategy_state import StrategyState


class Downlink(ABC):
    """What devices are sent of the server's models.

    Frames are shared objects: two devices that get equal bytes get one ArrayRecord,
    which the SuperLink stores once.

    Attributes
    ----------
    exact : bool
        Whether all devices decode the model that the version's digest names. False
        where each recovers an approximation of its own.
    part : str
        The device's half that decodes it; see `flwr_caesar.methods`.
    """

    exact: bool = True
    part: str = ""

    @property
    @abstractmethod
    def version(self) -> Version | None:
        """What is published; `None` before the first."""

    def first_bytes(self, layout: Layout) -> float:
        """Return about how many bytes a device is sent that holds no model."""
        return float(layout.nbytes)

    def notes(self) -> Sequence[str]:
        """Return what limits cost, in whole sentences; nothing if none is met."""
        return ()

    @property
    def bases(self) -> Container[Version]:
        """Versions of which the published one can be sent as a change."""
        return ()

    @property
    def newcomer(self) -> Version | None:
        """Base to suppose of a device that was never heard of; `None`: it has none."""
        return None

    @property
    def recipe(self) -> Mapping[str, Any]:
        """How a device makes the base `newcomer` from its own initial arrays."""
        return {}

    def begin(self, model: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the model to start a history from, near to the one given."""
        return model

    @abstractmethod
    def publish(self, model: Mapping[str, Array], number: int) -> Version:
        """Take a new model, in the dtypes of the first, under a version number."""

    def held(self, model: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return what devices hold of a model that was published last.

        Parameters
        ----------
        model : mapping of str to ndarray
            What `publish` was given; itself where it is sent as it is.

        Returns
        -------
        mapping of str to ndarray
            Of which an array may be made anew each time it is read.
        """
        return model

    @abstractmethod
    def frame(self, node_id: int, header: DownloadHeader) -> ArrayRecord:
        """Return what a node is sent, whose header's base is not its target."""

    def again(self, node_id: int) -> bool:
        """Whether a node that holds the published version is sent it all the same.

        Such as one that recovered it less precisely than it is to have it.
        """
        return False

    def state(self) -> StrategyState:
        """Return what a restarted server needs to go on with the same versions."""
        return StrategyState()

    def restore(self, state: StrategyState) -> None:  # noqa: B027
        """Go on from what `state` returned.

        Raises
        ------
        DamagedStateError
            If it was not made by `state`; nothing is changed then.
        """
