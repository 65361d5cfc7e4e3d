"""The whole model, exactly, but for the tensors that a device holds already."""

from __future__ import annotations

from collections.abc import Container, Mapping

from flwr.app import ArrayRecord

from flwr_caesar.codec import Codec, get_codec
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.frozen import frozen
from flwr_caesar.sync.part import same_tensor
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.state import Version
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import frame_to_record

from .downlink import Downlink
from .unchanged import Unchanged, restored

_EXACT = "dense"
_STATE = "unchanged"
# A part of a model that is not much shorter than the model is not worth a second frame.
_WORTH = 0.95


class WholeDownlink(Downlink):
    """The whole model, by one codec, the same frame for all devices.

    A device that holds an earlier version is sent the tensors that changed since, where
    others did not: a frozen backbone travels once.

    Parameters
    ----------
    codec : Codec
        May be lossy; the version is named by what the frame decodes to.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._version: Version | None = None
        self._model: Mapping[str, Array] | None = None
        self._whole: bytes | None = None
        self._unchanged = Unchanged()
        self._records: dict[frozenset[str] | None, ArrayRecord] = {}
        self._worth: dict[frozenset[str], bool] = {}

    def __str__(self) -> str:
        return str(self.codec.config)

    @property
    def version(self) -> Version | None:
        """See `Downlink.version`."""
        return self._version

    @property
    def bases(self) -> Container[Version]:
        """Versions that have enough tensors in common with the published one."""
        return _Worth(self)

    def begin(self, model: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the model as devices will decode it."""
        if self.codec.id == _EXACT:
            return model
        return self.codec.encode_decoded(model, finite=False)[1]

    def publish(self, model: Mapping[str, Array], number: int) -> Version:
        """See `Downlink.publish`."""
        whole: bytes | None = None
        decoded = model
        if self.codec.id != _EXACT:
            whole, decoded, _ = self.codec.encode_decoded(model, finite=False)
        digest = model_digest(decoded)
        self._unchanged = self._unchanged.publish(digest, decoded, self._model)
        self._version, self._model = (number, digest), decoded
        # An exact frame is made when a device is sent it: now replies are in memory.
        self._whole, self._records, self._worth = whole, {}, {}
        return self._version

    def held(self, model: Mapping[str, Array]) -> Mapping[str, Array]:
        """See `Downlink.held`; an equal model is shared with the caller."""
        own = self._model or {}
        if own.keys() == model.keys() and all(
            same_tensor(array, own[name]) for name, array in model.items()
        ):
            self._model = model
        return model

    def frame(self, node_id: int, header: DownloadHeader) -> ArrayRecord:
        """See `Downlink.frame`."""
        if self._version is None:
            raise ValueError("nothing is published yet")
        changed = None
        if header.base is not None:
            changed = self._unchanged.since(header.base[1])
        if changed not in self._records:
            frame = self._all() if changed is None else self._part(changed)
            self._records[changed] = frame_to_record(frame)
        return self._records[changed]

    def state(self) -> StrategyState:
        """See `Downlink.state`."""
        return StrategyState({_STATE: self._unchanged.to_tree()})

    def restore(self, state: StrategyState) -> None:
        """See `Downlink.restore`."""
        if _STATE not in state.tree:
            return
        self._unchanged = restored(state.tree[_STATE])

    def _all(self) -> bytes:
        if self._whole is None:
            assert self._model is not None
            self._whole, _ = self.codec.encode(self._model, finite=False)
        return self._whole

    def _part(self, names: frozenset[str]) -> bytes:
        assert self._model is not None
        part = {name: array for name, array in self._model.items() if name in names}
        return get_codec("dense").encode(part, finite=False)[0]

    def is_worth(self, digest: bytes) -> bool:
        """Whether the change since a version is much shorter than the model."""
        changed = self._unchanged.since(digest)
        if changed is None or self._model is None or len(changed) == len(self._model):
            return False
        if changed not in self._worth:
            self._worth[changed] = self._is_shorter(changed, self._model)
        return self._worth[changed]

    def _is_shorter(self, names: frozenset[str], model: Mapping[str, Array]) -> bool:
        whole = sum(array.nbytes for array in model.values())
        part = sum(model[name].nbytes for name in names)
        if part > _WORTH * whole:
            return False
        if names not in self._records:
            self._records[names] = frame_to_record(self._part(names))
        (array,) = self._records[names].values()
        return len(array.data) <= _WORTH * len(self._all())


@frozen
class _Worth:
    """Versions of which a change is worth sending, whatever their number."""

    downlink: WholeDownlink

    def __contains__(self, version: object) -> bool:
        return isinstance(version, tuple) and self.downlink.is_worth(version[1])
