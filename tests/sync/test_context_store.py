from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from flwr_caesar.codec.contract.digest import NamedModel, model_digest
from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.sync.packing import seal, unseal
from flwr_caesar.sync.shared_model import SharedModel
from flwr_caesar.sync.state import DeviceState, DeviceStore, Pending

from .faults import image, logged, sample

LINEAGE = sample(0).lineage
CONFIG, MODEL, MEMORY = (
    f"flwr-caesar.{LINEAGE:016x}.{part}" for part in ("state", "model", "memory")
)


def kept() -> RecordDict:
    records = RecordDict({"of the user": ConfigRecord({"x": 1})})
    ContextStore(records).save(sample(1))
    return records


def test_a_state_comes_back_whole() -> None:
    records = kept()
    store: DeviceStore = ContextStore(records)
    store.save(DeviceState(bytes(16), 5))
    assert image(store.load(LINEAGE)) == image(sample(1))
    assert image(store.load(5)) == image(DeviceState(bytes(16), 5))
    assert store.load(6) is None
    assert records["of the user"] == ConfigRecord({"x": 1})
    store.save(sample(2, version=9))
    assert image(store.load(LINEAGE)) == image(sample(2, version=9))


def test_a_state_survives_flowers_own_serialisation() -> None:
    records = recorddict_from_proto(recorddict_to_proto(kept()))
    assert image(ContextStore(records).load(LINEAGE)) == image(sample(1))


def test_what_was_told_is_read_where_format_2_kept_it() -> None:
    records = kept()
    silent = replace(sample(1), pending=(Pending(1, (1, 1), b""),) * 2)
    ContextStore(records).save(silent)
    first, second = [1, 1, 1, "update"], [2, 1, 1, "model", '{"labels": []}']
    _change(format=2, pending=[first, second])(records)
    state = ContextStore(records).load(LINEAGE)
    assert state
    assert [pending.told for pending in state.pending] == ["", '{"labels": []}']


def test_arrays_that_were_loaded_can_be_changed() -> None:
    state = ContextStore(kept()).load(LINEAGE)
    assert state
    assert all(array.flags.writeable for array in state.residual.values())


def _drop(key: str) -> Callable[[RecordDict], None]:
    return lambda records: records.__delitem__(key)


def _flip(records: RecordDict) -> None:
    row = records.array_records[MEMORY]["residual/w"]
    row.data = b"\x01" + row.data[1:] if row.data[0] != 1 else b"\x02" + row.data[1:]


def _plain_numpy(records: RecordDict) -> None:
    records[MODEL] = ArrayRecord({"w": Array(np.ones(3))})


def _wrong_type(records: RecordDict) -> None:
    records[MODEL] = ConfigRecord()


def _wrong_manifest(records: RecordDict) -> None:
    records[CONFIG] = ConfigRecord({"manifest": "text"})


def _change(**changes: object) -> Callable[[RecordDict], None]:
    def act(records: RecordDict) -> None:
        manifest = unseal(records.config_records[CONFIG]["manifest"])  # type: ignore[arg-type]
        sealed = seal({**manifest, **changes})
        records[CONFIG] = ConfigRecord({"manifest": sealed})

    return act


@pytest.mark.parametrize(
    "damage",
    [
        _drop(MODEL),
        _drop(MEMORY),
        _flip,
        _plain_numpy,
        _wrong_type,
        _wrong_manifest,
        _change(format=6),
        _change(lineage=5),
        _change(model=None),
        _change(order=None),
        _change(pending=[[1, 1, 1, "update", "["], [2, 1, 1, "update", ""]]),
        _change(pending=[[1, 1, 1, "update", 7], [2, 1, 1, "update", ""]]),
    ],
)
def test_damage_is_logged_and_the_state_is_gone(
    damage: Callable[[RecordDict], None],
) -> None:
    records = kept()
    damage(records)
    with logged() as lines:
        assert ContextStore(records).load(LINEAGE) is None
    assert [line.levelname for line in lines] == ["WARNING"]
    ContextStore(records).save(sample(2))
    assert image(ContextStore(records).load(LINEAGE)) == image(sample(2))


def test_devices_that_hold_one_shared_model_store_it_once() -> None:
    alone, model = sample(1), dict(sample(1).model)
    shared = SharedModel(NamedModel(model, model_digest(model)), seconds=0.1)
    contexts = [RecordDict(), RecordDict()]
    for records in contexts:
        ContextStore(records).save(replace(alone, model=shared))
        assert image(ContextStore(records).load(LINEAGE)) == image(alone)
    one, other = ([a.data for a in c[MODEL].values()] for c in contexts)
    assert all(a is b for a, b in zip(one, other, strict=True))
    del contexts[0][MODEL]
    assert image(ContextStore(contexts[1]).load(LINEAGE)) == image(alone)
