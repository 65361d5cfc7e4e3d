"""The control: the inner strategy's own traffic, measured."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from flwr_caesar.codec import CodecError, difference
from flwr_caesar.codec.layout import Array, Arrays

from .wrapper import StrategyWrapper

_NPY_HEADER_MAX = 4096


class Uncompressed(StrategyWrapper):
    """Send plain arrays, as without us, and record what they cost.

    The ClientApp needs no mod. What differs from the inner strategy alone: replies are
    checked and added up as they arrive, and each round is recorded.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    **options
        See `WrapperOptions`.
    """

    def _pack(self, node_id: int, content: RecordDict) -> RecordDict:
        return content

    def _open_record(
        self, node_id: int, record: ArrayRecord, base: Arrays
    ) -> dict[str, Array]:
        arrays = {}
        for name, array in record.items():
            if name not in base:
                raise CodecError(f"reply has a tensor {name!r} that was not sent")
            if len(array.data) > 2 * base[name].nbytes + _NPY_HEADER_MAX:
                raise CodecError(f"tensor {name!r} is larger than the model's")
            arrays[name] = array.numpy()
            if not np.isfinite(arrays[name]).all():
                raise CodecError(f"tensor {name!r} holds NaN or infinity")
        return difference(arrays, base)
