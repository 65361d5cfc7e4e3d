"""A phase knows its kind, and a request what it carried."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord

from flwr_caesar.strategies.charge import Work
from flwr_caesar.strategies.phase import Device, Phase, Request
from flwr_caesar.sync.ledger_api import DeviceRow
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.transport import record_nbytes


@pytest.mark.parametrize(
    ("kind", "is_train", "is_extra"),
    [("train", True, False), ("evaluate", False, False), ("settle", False, True)],
)
def test_kinds(kind: str, is_train: bool, is_extra: bool) -> None:
    phase = Phase(kind, 3)
    assert (phase.is_train, phase.is_extra) == (is_train, is_extra)


def test_two_phases_share_nothing() -> None:
    first, second = Phase("train", 1), Phase("train", 2)
    first.faults[1] = "no reply"
    assert second.faults == {}


def test_a_request_knows_the_size_of_the_model() -> None:
    model = {"w": np.zeros((3, 4), np.float32), "n": np.zeros((), np.int64)}
    assert Request(1, "arrays", model, {}, 20, Work()).raw_bytes == 56
    control = ArrayRecord([np.zeros(10, np.float32)])
    with_control = Request(1, "arrays", model, {"control": control}, 20, Work())
    assert with_control.model_bytes == 56
    assert with_control.raw_bytes == 56 + record_nbytes(control)


def test_a_device_never_heard_of_has_no_facts() -> None:
    header = DownloadHeader(1, (1, 1), 1, (0, bytes(8)))
    assert Device(1, header, None).facts == b""
    row = DeviceRow(device="a" * 32, held=None, facts=b"noted")
    assert Device(1, header, row).facts == b"noted"
