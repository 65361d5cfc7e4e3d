"""A reply that is said again says all that it said before."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from flwr_caesar.clients.cached_reply import MAX_ARRAY_BYTES, CachedReply
from flwr_caesar.sync.packing import pack_memory
from flwr_caesar.sync.state import DeviceState, Pending
from flwr_caesar.transport import arrays_to_record

UPLOAD = 7


def state(told: str = "") -> DeviceState:
    pending = Pending(UPLOAD, (1, 1), b"frame", told=told)
    return DeviceState(bytes(16), 1, pending=(pending,))


def reply(values: np.ndarray) -> RecordDict:
    return RecordDict(
        {
            "arrays": arrays_to_record({"w": np.ones(3)}),
            "metrics": MetricRecord({"num-examples": 3, "losses": [0.5, float("inf")]}),
            "notes": ConfigRecord(
                {"raw": b"\x00\xff", "many": [b"a", b""], "word": "é", "on": True}
            ),
            "mask": arrays_to_record({"m": values}),
        }
    )


def test_all_records_but_the_upload_come_back():
    content = reply(np.arange(6, dtype=np.int16).reshape(2, 3))
    kept = CachedReply.of(content, {"a": 1}, [2, 3], upload="arrays").into(state())
    pack_memory(kept)  # that it can be saved
    again = CachedReply.beside(kept, UPLOAD)
    records = RecordDict(dict(again.records()))
    del content["arrays"]
    assert records.metric_records == content.metric_records
    assert records.config_records == content.config_records
    assert list(records.array_records) == ["mask"]
    (mask,) = records["mask"].values()
    (sent,) = content["mask"].values()
    assert (mask.stype, mask.data) == (sent.stype, sent.data)
    np.testing.assert_array_equal(mask.numpy(), sent.numpy())
    assert again.report().labels == (2, 3)
    assert again.report().part == {"a": 1}


def test_an_older_state_is_read():
    told = json.dumps({"metrics": {"m": {"x": 1}}, "part": {}, "labels": []})
    again = CachedReply.beside(state(told), UPLOAD)
    assert again.records() == {"m": MetricRecord({"x": 1})}


def test_a_state_with_nothing_new_is_what_it_was():
    content = RecordDict({"metrics": MetricRecord({"x": 1})})
    (pending,) = CachedReply.of(content, {}, []).into(state()).pending
    assert json.loads(pending.told).keys() == {"metrics", "part", "labels"}


@pytest.mark.parametrize("more", [0, 8])
def test_arrays_beyond_the_limit_are_not_kept_and_that_is_logged(
    more, caplog, monkeypatch
):
    (full,) = reply(np.zeros(MAX_ARRAY_BYTES, np.uint8))["mask"].values()
    header = len(full.data) - MAX_ARRAY_BYTES
    content = reply(np.zeros(MAX_ARRAY_BYTES - header + more, np.uint8))
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    with caplog.at_level(logging.WARNING, "flwr"):
        kept = CachedReply.of(content, {}, [], upload="arrays").into(state())
    again = CachedReply.beside(kept, UPLOAD).records()
    assert ("mask" in again) == (not more)
    assert {"metrics", "notes"} <= again.keys()
    assert ("not sent again" in caplog.text) == bool(more)
