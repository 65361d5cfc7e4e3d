"""Device states in Flower's Context, for simulations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from logging import WARNING

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from flwr_caesar.codec.contract.layout import Array, Arrays, dtype_name, to_dtype
from flwr_caesar.flower import log, record_of

from .errors import DamagedStateError
from .packing import describe, pack_memory, restore, seal, unseal
from .shared_model import SharedModel
from .state import DeviceState
from .tensors import checksum

_PREFIX = "flwr-caesar"
_STYPE = "flwr-caesar.raw"


class ContextStore:
    """Keeps states in ``Context.state``: two ArrayRecords and one ConfigRecord each.

    Flower keeps the Context between messages and gives it to one process at a time.
    A `save` counts if the Context reaches Flower with the reply.

    Parameters
    ----------
    records : RecordDict
        ``context.state``.
    """

    def __init__(self, records: RecordDict) -> None:
        self._records = records

    def load(self, lineage: int) -> DeviceState | None:
        """Return the state of a lineage; `None`, with a log line, if unusable."""
        config, *kept = (self._records.get(key) for key in _keys(lineage))
        if config is None:
            return None
        try:
            manifest = unseal(_sealed(config))
            parts = []
            for record, kind in zip(kept, ("model", "memory"), strict=True):
                if not isinstance(record, ArrayRecord):
                    raise DamagedStateError(f"the {kind} is missing")
                if _checksum(record.values()) != manifest.get(kind):
                    raise DamagedStateError(f"the {kind} has the wrong checksum")
                parts.append({name: _to_numpy(row) for name, row in record.items()})
            state = restore(manifest, *parts)
            if state.lineage != lineage:
                raise DamagedStateError("it is of another lineage")
        except DamagedStateError as err:
            log(
                WARNING,
                "State of lineage %016x in the Context is not usable: %s. The device "
                "starts anew: what it had not sent yet is lost.",
                lineage,
                err,
            )
            return None
        return state

    def prepare(self, state: DeviceState) -> DeviceState:
        """Return the state: there is no disk that could be full."""
        return state

    def save(self, state: DeviceState) -> None:
        """Put a state in place of the one before.

        Raises
        ------
        StateError
            If what a reply told is too long.
        """
        config, model, memory = _keys(state.lineage)
        parts = [_stored(part) for part in (state.model, pack_memory(state))]
        sums = [part.checksum for part in parts]
        manifest = {**describe(state), "model": sums[0], "memory": sums[1]}
        self._records[model], self._records[memory] = (record_of(p.rows) for p in parts)
        self._records[config] = ConfigRecord({"manifest": seal(manifest)})


def _keys(lineage: int) -> tuple[str, str, str]:
    base = f"{_PREFIX}.{lineage:016x}"
    return f"{base}.state", f"{base}.model", f"{base}.memory"


def _sealed(config: object) -> bytes:
    sealed = config.get("manifest") if isinstance(config, ConfigRecord) else None
    if not isinstance(sealed, bytes):
        raise DamagedStateError("the manifest is missing")
    return sealed


@dataclass(frozen=True)
class _Stored:
    """Arrays as they stand in a Context, and their checksum."""

    rows: dict[str, FlowerArray]
    checksum: int


def _stored(arrays: Arrays) -> _Stored:
    """Return what is stored of arrays; of a shared model, the same in each Context."""
    shared = arrays if isinstance(arrays, SharedModel) else None
    if shared and isinstance(shared.stored, _Stored):
        return shared.stored
    rows = {}
    for name, array in arrays.items():
        dtype = dtype_name(array.dtype)
        data = array.astype(to_dtype(dtype), copy=False).tobytes()
        rows[name] = FlowerArray(dtype, tuple(array.shape), _STYPE, data)
    found = _Stored(rows, _checksum(rows.values()))
    if shared:
        shared.stored = found
    return found


def _checksum(rows: Iterable[FlowerArray]) -> int:
    return checksum(row.data for row in rows)


def _to_numpy(row: FlowerArray) -> Array:
    try:
        if row.stype != _STYPE:
            raise DamagedStateError(f"an array is stored as {row.stype}")
        flat = np.frombuffer(bytearray(row.data), to_dtype(row.dtype))
        return flat.reshape(row.shape)
    except (ValueError, TypeError) as err:
        raise DamagedStateError(f"an array is malformed: {err}") from err
