"""SZ3, by its Python package pysz: every element within a bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.layout import Array, Arrays

from .peer import Peer, relative_bounds

ALGORITHMS = ("best", "default", "NOPRED", "LORENZO_REG", "INTERP_LORENZO", "INTERP")


@dataclass(frozen=True, kw_only=True)
class Sz3Peer(Peer):
    """SZ3 in its mode REL, tensor by tensor.

    Parameters
    ----------
    rel : float
        Bound as a fraction of each tensor's range, in ``(0, 1)``.
    algorithm : str
        One of SZ3's, ``"default"``, or ``"best"``: the shortest of its default and of
        no prediction, in the tensor's own shape and flat, chosen for each tensor.

    References
    ----------
    Liang et al. (2023), SZ3, doi:10.1109/TBDATA.2022.3201176.
    """

    rel: float = 1e-2
    algorithm: str = "best"

    id: ClassVar[str] = "sz3"
    module: ClassVar[str] = "pysz"
    install: ClassVar[str] = "pip install pysz"

    def __post_init__(self) -> None:
        if not 0 < self.rel < 1:
            raise CodecError(f"sz3: rel must be in (0, 1), not {self.rel}")
        if self.algorithm not in ALGORITHMS:
            raise CodecError(f"sz3: algorithm must be one of {', '.join(ALGORITHMS)}")
        self.require()

    def error_bound(self, arrays: Arrays) -> Mapping[str, Array]:
        """See `Peer.error_bound`."""
        return relative_bounds(self, arrays, self.rel)

    def _encode(self, arrays: Arrays, state: Any) -> tuple[list[bytes], Any]:
        sz = self._load(self.module).sz
        pieces = []
        for spec in self.lossy:
            x = np.ascontiguousarray(arrays[spec.name])
            tried = []
            for flat in (False, True):
                shaped = x.reshape(-1) if flat else x
                for config in self._configs():
                    packed = sz.compress(shaped, config)[0].tobytes()
                    tried.append(bytes([flat]) + packed)
            pieces.append(min(tried, key=len))
        return pieces, None

    def _decode(self, pieces: list[bytes], state: Any) -> tuple[dict[str, Array], Any]:
        sz = self._load(self.module).sz
        decoded = {}
        for spec, piece in zip(self.lossy, pieces, strict=True):
            shape = (spec.size,) if piece[0] else spec.shape
            data = np.frombuffer(piece[1:], np.uint8)
            decoded[spec.name] = sz.decompress(data, np.float32, shape)[0].reshape(
                spec.shape
            )
        return decoded, None

    def _configs(self) -> list[Any]:
        pysz = self._load(self.module)
        names = ("default", "NOPRED") if self.algorithm == "best" else (self.algorithm,)
        configs = []
        for name in names:
            config = pysz.szConfig()
            config.errorBoundMode = pysz.szErrorBoundMode.REL
            config.relErrorBound = self.rel
            if name != "default":
                config.cmprAlgo = getattr(pysz.szAlgorithm, name)
            configs.append(config)
        return configs
