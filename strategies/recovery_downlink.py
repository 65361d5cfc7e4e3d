"""Caesar's own download: compressed models that devices recover from their own."""

from __future__ import annotations

from collections.abc import Container, Mapping

from flwr.app import ArrayRecord

from flwr_caesar.codec import get_codec
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.sync.ledger_api import Version
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.transport import frame_to_record

from .downlink import Downlink


class RecoveryDownlink(Downlink):
    """The largest weights as they are and a sign bit for each other one.

    Devices recover the latter from the model they trained last, so each ends with a
    model of its own. One that has none is sent the whole model.

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
        self._records: dict[float, ArrayRecord] = {}

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
        self._model = model
        self._records = {}
        self._version = number, model_digest(model)
        return self._version

    def assign(self, ratios: Mapping[int, float]) -> None:
        """Set the drop fraction of each node for the next frames; 0 for all others."""
        self._ratios = ratios

    def frame(self, node_id: int, header: DownloadHeader) -> ArrayRecord:
        """See `Downlink.frame`."""
        ratio = 0.0 if header.base is None else self._ratios.get(node_id, 0.0)
        if ratio not in self._records:
            config = {
                "id": "caesar_model",
                "drop_fraction": ratio,
                "exact_below": self._exact_below,
            }
            codec = get_codec(config if ratio else {"id": "dense"})
            self._records[ratio] = frame_to_record(
                codec.encode(self._model, finite=False)[0]
            )
        return self._records[ratio]


class _Everything:
    def __contains__(self, version: object) -> bool:
        return True
