"""Caesar's own download: compressed models that devices recover from their own."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping

from flwr.app import ArrayRecord

from flwr_caesar.codec import get_codec
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.state import Version
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import frame_to_record

from .downlink import Downlink
from .unchanged import Unchanged, restored

_STATE = "unchanged"


class RecoveryDownlink(Downlink):
    """The largest weights as they are and a sign bit for each other one.

    Devices recover the latter from the model they trained last, so each ends with a
    model of its own. One that has none is sent the whole model. Tensors that are as in
    the first model of the history are not sent again: every device holds them
    exactly.

    Parameters
    ----------
    exact_below : int
        Tensors of fewer elements are sent exactly.

    References
    ----------
    Yan et al. (2024), arXiv:2412.19989.
    """

    exact = False
    part = "recovery"

    def __init__(self, *, exact_below: int = 1024) -> None:
        self._exact_below = exact_below
        self._version: Version | None = None
        self._model: Mapping[str, Array] = {}
        self._ratios: Mapping[int, float] = {}
        self._again: Collection[int] = ()
        self._records: dict[tuple[float, bool], ArrayRecord] = {}
        self._unchanged = Unchanged()
        self._from_start = False

    def __str__(self) -> str:
        return "caesar_model"

    @property
    def version(self) -> Version | None:
        """See `Downlink.version`."""
        return self._version

    @property
    def bases(self) -> Container[Version]:
        """All: a device recovers from whatever it holds."""
        return _Everything()

    def publish(self, model: Mapping[str, Array], number: int) -> Version:
        """See `Downlink.publish`."""
        if self._version is None and not self._unchanged.count:
            self._from_start = number == 0
        digest = model_digest(model)
        before = self._model if self._version else None
        self._unchanged = self._unchanged.publish(digest, model, before)
        self._model = model
        self._records = {}
        self._version = number, digest
        return self._version

    def held(self, model: Mapping[str, Array]) -> Mapping[str, Array]:
        """See `Downlink.held`; the model is shared with the caller."""
        self._model = model
        return model

    def assign(
        self, ratios: Mapping[int, float], *, again: Collection[int] = ()
    ) -> None:
        """Set the drop fraction of each node for the next frames; 0 for all others.

        Parameters
        ----------
        ratios : mapping of int to float
            By node id.
        again : collection of int
            Nodes that are sent the model though they hold its version, as they
            recovered it at another ratio.
        """
        self._ratios, self._again = ratios, again

    def again(self, node_id: int) -> bool:
        """See `Downlink.again`."""
        return node_id in self._again

    def frame(self, node_id: int, header: DownloadHeader) -> ArrayRecord:
        """See `Downlink.frame`."""
        ratio = 0.0 if header.base is None else self._ratios.get(node_id, 0.0)
        names = self._sent(header.base)
        key = ratio, len(names) < len(self._model)
        if key not in self._records:
            config = {
                "id": "caesar_model",
                "drop_fraction": ratio,
                "exact_below": self._exact_below,
            }
            codec = get_codec(config if ratio else {"id": "dense"})
            part = {n: array for n, array in self._model.items() if n in names}
            self._records[key] = frame_to_record(codec.encode(part, finite=False)[0])
        return self._records[key]

    def state(self) -> StrategyState:
        """See `Downlink.state`."""
        return StrategyState(
            {_STATE: self._unchanged.to_tree()} if self._from_start else {}
        )

    def restore(self, state: StrategyState) -> None:
        """See `Downlink.restore`."""
        if _STATE in state.tree:
            self._unchanged = restored(state.tree[_STATE])
            self._from_start = True

    def _sent(self, base: Version | None) -> Collection[str]:
        """Return the tensors that who holds a version is sent."""
        if base is None or not self._from_start:
            return self._model.keys()
        if self._unchanged.since(base[1]) is None:
            return self._model.keys()
        return {name for name, when in self._unchanged.changed.items() if when}


class _Everything:
    def __contains__(self, version: object) -> bool:
        return True
