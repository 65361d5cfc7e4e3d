"""Published models that several devices of one process are sent, decoded once."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

from flwr_caesar.codec.contract.digest import NamedModel
from flwr_caesar.sync.shared_model import SharedModel

MOST_BYTES = 16 << 20
"""Of the models that are kept for other devices, all together."""


class SharedDownloads:
    """Keeps what was decoded last, by the frame and the model that it changes.

    Such a frame names the model that it starts from and the one that it leads to, so
    that it comes to the same on every device. Larger models are not kept.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[bytes, bytes | None], SharedModel] = {}
        self._lock = Lock()

    def get(
        self,
        frame: bytes,
        base_digest: bytes | None,
        decode: Callable[[], NamedModel],
    ) -> NamedModel:
        """Return the model of a frame; `decode` makes it if no device has had it.

        Parameters
        ----------
        frame : bytes
            Of a published model, whole or as a change.
        base_digest : bytes, optional
            Of the model that this device holds, if the frame may change one.
        decode : callable
            Returns the model, and raises CodecError where the frame is of no use here.
        """
        key = (frame, base_digest)
        with self._lock:
            held = self._kept.pop(key, None)
            if held is not None:
                self._kept[key] = held
                return held
        start = time.monotonic()
        model = decode()
        seconds = time.monotonic() - start
        if sum(array.nbytes for array in model.values()) > MOST_BYTES:
            return model
        shared = SharedModel(model, seconds)
        with self._lock:
            self._kept[key] = shared
            while sum(each.nbytes for each in self._kept.values()) > MOST_BYTES:
                del self._kept[next(iter(self._kept))]
        return shared
