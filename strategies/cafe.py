"""CAFe: the last round's mean update predicts every device's next one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import Layout, difference, get_codec, update_layout
from flwr_caesar.codec.codecs.predicted import PredictedCodec
from flwr_caesar.codec.contract.layout import Array, to_dtype
from flwr_caesar.plan.by_size import by_size
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import PREDICTION_KEY, frame_to_record

from .compressed import CompressedStrategy
from .downlinks import get_downlink
from .method import ServerMethod
from .options import WrapperOptions
from .phase import Device, DevicePlan, Outcome, Phase
from .shared_memory import SharedMemory
from .uplink_memory import UplinkMemory

PART = "shared_prediction"
_ARRAYS = "prediction/"


class CafeMethod(ServerMethod):
    """The server's half: send the last mean update along, and decode with it.

    Parameters
    ----------
    compressor, density, bits
        See `CAFe`.
    downlink : {"whole", "lattice"}
        Likewise.
    """

    def __init__(
        self, *, compressor: str, density: float | None, bits: float, downlink: str
    ) -> None:
        def upload(elements: int) -> PredictedCodec:
            own = by_size(elements, small=0.4, usual=0.1)
            kept = own if density is None else density
            return PredictedCodec(compressor=compressor, density=kept, bits=bits)

        super().__init__(downlink=get_downlink(downlink), upload=upload)
        self._predicting = upload
        self._sent_by = get_codec(
            {"id": "lattice", "rate": 1.0, "exact_below": 0}
            if downlink == "lattice"
            else "dense"
        )
        self._memory = SharedMemory()
        self._prediction: dict[str, Array] = {}
        self._record: ArrayRecord | None = None

    def uplink_memory(self) -> UplinkMemory:
        """See `ServerMethod.uplink_memory`: one for all devices."""
        return self._memory

    def plan(self, phase: Phase, devices: Sequence[Device]) -> Mapping[int, DevicePlan]:
        """Send the devices of a training phase the prediction, if there is one."""
        alone = plan = DevicePlan(self.upload_for(phase.layout))
        if phase.is_train and phase.layout is not None:
            record = self._shared(phase.layout)
            if record is not None:
                plan = replace(plan, part=PART, records={PREDICTION_KEY: record})
        return {d.node_id: plan if _reads(d) else alone for d in devices}

    @property
    def keeps_mean(self) -> bool:
        """See `ServerMethod.keeps_mean`."""
        return True

    def after(self, phase: Phase, present: Collection[Device]) -> Outcome:
        """Remember the mean update of a round that was used."""
        if phase.is_train and phase.model and phase.layout is not None:
            sent = next(iter(phase.requests.values())).sent
            update = difference(dict(phase.mean or phase.model), sent)
            specs = update_layout(phase.layout).tensors
            cast = {s.name: update[s.name].astype(to_dtype(s.dtype)) for s in specs}
            codec = self._predicting(phase.layout.num_params)
            self._prediction, self._record = codec.prediction(cast), None
        return Outcome()

    def state(self) -> StrategyState:
        """See `ServerMethod.state`."""
        state = super().state()
        kept = {_ARRAYS + name: array for name, array in self._prediction.items()}
        return StrategyState(state.tree, {**state.arrays, **kept})

    def restore(self, state: StrategyState, facts: Mapping[str, bytes]) -> None:
        """See `ServerMethod.restore`."""
        kept = {
            name.removeprefix(_ARRAYS): array
            for name, array in state.arrays.items()
            if name.startswith(_ARRAYS)
        }
        if any(a.dtype != np.float32 or a.ndim != 1 for a in kept.values()):
            raise DamagedStateError("the checkpoint's last mean update is none")
        rest = {n: a for n, a in state.arrays.items() if not n.startswith(_ARRAYS)}
        super().restore(StrategyState(state.tree, rest), facts)
        self._prediction, self._record = kept, None

    def _shared(self, layout: Layout) -> ArrayRecord | None:
        """Return what devices are sent, and decode with what they make of it."""
        if self._record is None and self._prediction:
            frame, decoded, _ = self._sent_by.encode_decoded(self._prediction)
            self._memory.share(update_layout(layout), decoded)
            self._record = frame_to_record(frame)
        return self._record


def _reads(device: Device) -> bool:
    """Whether a device can use a prediction."""
    return device.can is None or PART in device.can.parts


class CAFe(CompressedStrategy):
    """Devices send what the last round's mean update does not tell of their own.

    Compressed aggregate feedback. Beside the model, each device of a round is sent
    ``d``, the mean of the updates of the round before, and uploads ``C(u - d)`` for its
    own update ``u``; the server decodes ``d + C(u - d)``. Nothing that the compressor
    leaves out is remembered: devices may be others in every round. For what was lost on
    the way, the promises of all strategies hold (docs/sync.md).

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    compressor : {"topk", "quantized"}
        ``C``: the largest elements of each tensor in float16, or these at a few bits
        each.
    density : float, optional
        Fraction of elements sent, in ``(0, 1]``. By default 0.1, and more of a model of
        fewer than 80,000 elements: 0.4 up to 50,000
        (`flwr_caesar.plan.by_size.by_size`).
    bits : float
        Mean bits of a sent element where the compressor is ``"quantized"``, from 2 to
        8.
    downlink : {"whole", "lattice"}
        How model and mean update go down: exactly, in twice the bytes of the model; or
        the model rounded to published points, of which a device gets the change since
        the one it holds, and the mean update at a bit an element.
    **options
        See `WrapperOptions`.

    Raises
    ------
    CodecError
        If a parameter of the compressor is out of range.
    ValueError
        If another one is.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = CAFe(FedAvg(fraction_train=0.1), density=0.01)

    References
    ----------
    Ortega, Huang, Li and Jafarkhani (2024), arXiv:2412.04538. What is theirs and what
    is ours is said in docs/cafe.md.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        compressor: str = "topk",
        density: float | None = None,
        bits: float = 8.0,
        downlink: str = "whole",
        **options: Unpack[WrapperOptions],
    ) -> None:
        method = CafeMethod(
            compressor=compressor, density=density, bits=bits, downlink=downlink
        )
        super().__init__(strategy, method, **options)
