"""NNCodec, the reference software of ISO/IEC 15938-17: DeepCABAC and its quantisers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.layout import Array, Arrays

from .peer import Peer, relative_bounds

# Steps on a grid of 128 an octave, the finest that the bit stream can name.
_DENSITY = 7
_OCTAVES = 1 << _DENSITY
_LEAST, _MOST = -(1 << (5 + _DENSITY)), (1 << (5 + _DENSITY)) - 1


@dataclass(frozen=True, kw_only=True)
class NNCodecPeer(Peer):
    """NNCodec on updates, with what makes it shortest.

    Parameters
    ----------
    rel : float
        Bound as a fraction of each tensor's range: uniform rounding, at a step of each
        tensor's own just below twice the bound. Its trellis does not keep a bound.
    nmse : float
        Most relative squared error of all lossy tensors together, used instead of `rel`
        if not 0: dependent quantisation with its trellis, at the largest step for all
        tensors whose error is within it.
    temporal : bool
        Whether symbols are coded in contexts of what the last round had in their place,
        which both sides remember.

    References
    ----------
    Becking et al. (2023), NNCodec, ICML Neural Compression Workshop; ISO/IEC 15938-17,
    second edition.
    """

    rel: float = 1e-2
    nmse: float = 0.0
    temporal: bool = True

    id: ClassVar[str] = "nncodec"
    module: ClassVar[str] = "nncodec.nnc"
    install: ClassVar[str] = (
        "with a C++ compiler, pip install pybind11 wheel 'setuptools>=61' && "
        "pip install --no-deps --no-build-isolation nncodec==2.1.3"
    )

    def __post_init__(self) -> None:
        if not 0 < self.rel < 1:
            raise CodecError(f"nncodec: rel must be in (0, 1), not {self.rel}")
        if not 0 <= self.nmse < 1:
            raise CodecError(f"nncodec: nmse must be in [0, 1), not {self.nmse}")
        self.require()

    def error_bound(self, arrays: Arrays) -> Mapping[str, Array] | None:
        """See `Peer.error_bound`."""
        return None if self.nmse else relative_bounds(self, arrays, self.rel)

    def _encode(self, arrays: Arrays, state: Any) -> tuple[list[bytes], Any]:
        ordered = {s.name: np.ascontiguousarray(arrays[s.name]) for s in self.lossy}
        if not ordered:
            return [], state
        if self.nmse:
            return self._within(ordered, state)
        steps = relative_bounds(self, ordered, 2 * self.rel)
        units = {name: _below(float(step)) for name, step in steps.items()}
        piece, state = self._compress(ordered, units, state)
        return [piece], state

    def _decode(self, pieces: list[bytes], state: Any) -> tuple[dict[str, Array], Any]:
        return self._decompress(pieces[0], state) if pieces else ({}, state)

    def _within(self, arrays: Arrays, state: Any) -> tuple[list[bytes], Any]:
        """Return the shortest bit stream within `nmse`, by halving an interval."""
        energy = _energy(arrays)
        size = sum(array.size for array in arrays.values())
        middle = _below(max(float(np.sqrt(energy / max(size, 1))), 1e-30))
        low, high = middle - 6 * _OCTAVES, middle + 3 * _OCTAVES
        made = self._compress(arrays, dict.fromkeys(arrays, low), state)
        while high - low > _OCTAVES // 32:
            unit = (low + high) // 2
            tried = self._compress(arrays, dict.fromkeys(arrays, unit), state)
            decoded, _ = self._decompress(tried[0], state)
            lost = _energy({name: a - decoded[name] for name, a in arrays.items()})
            if lost <= self.nmse * energy:
                low, made = unit, tried
            else:
                high = unit
        return [made[0]], made[1]

    def _compress(
        self, arrays: Arrays, units: Mapping[str, int], state: Any
    ) -> tuple[bytes, Any]:
        memory = _copied(state)
        with redirect_stdout(StringIO()):
            stream = self._load(self.module).compress(
                dict(arrays),
                bitstream_path=None,
                qp=0,
                qp_density=_DENSITY,
                qp_per_tensor={n: np.int32(_held(unit)) for n, unit in units.items()},
                use_dq=bool(self.nmse),
                param_opt=True,
                row_skipping=True,
                tca=self.temporal and state is not None,
                approx_param_base=memory if self.temporal else None,
                update_base_param=self.temporal,
                compress_differences=self.temporal and state is not None,
                pre_signalling=False,
                return_bitstream=True,
            )
        return bytes(stream), memory

    def _decompress(self, stream: bytes, state: Any) -> tuple[dict[str, Array], Any]:
        memory = _copied(state)
        with redirect_stdout(StringIO()):
            decoded = self._load(self.module).decompress(
                bytearray(stream),
                approx_param_base=memory if self.temporal else None,
                update_base_param=self.temporal,
            )
        found = {}
        for spec in self.lossy:  # a tensor of nothing but 0 is left out
            array = decoded.get(spec.name, np.zeros(spec.shape, np.float32))
            found[spec.name] = array.reshape(spec.shape)
        return found, memory

    def _load(self, module: str) -> Any:
        _stand_in_for_framework()
        return super()._load(module)


def _energy(arrays: Arrays) -> float:
    return sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays.values())


def _below(step: float) -> int:
    """Return the number of the largest step of the grid that is not above `step`."""
    if not step > 0:
        return _LEAST
    octave = int(np.floor(np.log2(step)))
    return octave * _OCTAVES + int(np.floor((step * 2.0**-octave - 1) * _OCTAVES))


def _held(unit: int) -> int:
    return min(max(unit, _LEAST), _MOST)


def _copied(state: Any) -> dict[str, Any]:
    """Return a memory that the codec may change, of a state or of the beginning."""
    if state is None:
        names = ("parameters", "put_node_depth", "parameter_id")
        return {"device_id": 0, **{name: {} for name in names}}
    return {k: dict(v) if isinstance(v, dict) else v for k, v in state.items()}


def _stand_in_for_framework() -> None:
    """Let the codec be imported without what its training examples need.

    `nncodec.framework` imports PyTorch, torchvision, TensorFlow, Flower's legacy client
    and numpy 1; the codec asks it only whether what it is given is a whole model.
    """
    if "nncodec.framework" in sys.modules:
        return
    framework: Any = ModuleType("nncodec.framework")
    framework.tensorflow_model = SimpleNamespace(is_tef_model=lambda _: False)
    framework.pytorch_model = SimpleNamespace(is_pyt_model=lambda _: False)
    framework.use_case_init = SimpleNamespace(use_cases={})
    sys.modules["nncodec.framework"] = framework
