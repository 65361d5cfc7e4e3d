"""What each phase cost, device by device."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from flwr_caesar.flower import act_in_run
from flwr_caesar.records import RoundRecord
from flwr_caesar.strategies.charge import Work
from flwr_caesar.strategies.metrics import quality, read_accuracy
from flwr_caesar.strategies.phase import Phase, Reply, Request
from flwr_caesar.strategies.recorder import NOT_ANSWERED, Recorder
from flwr_caesar.transport import DeviceReport, record_nbytes

MODEL = {"w": np.zeros(100, np.float32)}


def opened(recorder: Recorder, kind: str = "train") -> Phase:
    phase = Phase(kind, 2)
    for node in (1, 2, 3):
        phase.requests[node] = Request(node, "arrays", MODEL, {}, 50 + node, Work(8, 4))
    recorder.opened(phase)
    return phase


def reply(node: int) -> Reply:
    act_in_run(1)  # messages take their sender from it
    content = RecordDict({"metrics": MetricRecord({"accuracy": 0.5})})
    message = Message(RecordDict(), dst_node_id=node, message_type="train")
    report = DeviceReport(train=2.0, encode=0.25, decode=0.125, start=1.0)
    return Reply(node, message, content, weight=30.0, report=report)


def test_everybody_is_missing_until_there() -> None:
    recorder = Recorder((), None)
    phase = opened(recorder)
    assert recorder.is_expected(phase, 1)
    assert not recorder.is_expected(phase, 9)
    recorder.arrived(phase, 1, seconds=3.0, bytes_up=7)
    assert recorder.read(phase, reply(1))
    assert not recorder.is_expected(phase, 1)
    recorder.closed(phase, virtual_seconds=None, seconds_busy=0.5)
    (record,) = recorder.history
    one, two, three = record.devices
    assert (one.bytes_down, one.bytes_up, one.raw_bytes_up) == (51, 7, 400)
    assert (one.batch_size, one.local_steps, one.examples) == (8, 4, 30.0)
    assert (one.seconds_train, one.seconds_encode) == (2.0, 0.25)
    assert (one.seconds_decode, one.seconds_start) == (0.125, 1.0)
    assert (one.accuracy, one.dropped) == (0.5, "")
    assert (two.dropped, three.dropped) == (NOT_ANSWERED, NOT_ANSWERED)
    assert record.seconds_server == 0.5


@pytest.mark.parametrize(
    ("metrics", "found"),
    [
        ({"eval_loss": 1.5, "eval_acc": 0.5}, {"accuracy": 0.5, "loss": 1.5}),
        ({"test_accuracy": 0.5, "num-examples": 9}, {"accuracy": 0.5}),
        ({"eval_acc": 0.25, "accuracy": 0.5}, {"accuracy": 0.5}),
        ({"Val/Acc": 1, "loss": 2}, {"accuracy": 1.0, "loss": 2.0}),
        ({"train_acc": 0.5, "train_loss": 1.0, "acceptance": 0.5}, {}),
        ({"accuracy": [0.5, 0.5]}, {}),
    ],
)
def test_how_good_a_model_is_by_the_names_that_apps_use(
    metrics: dict[str, Any], found: dict[str, float]
) -> None:
    assert quality(MetricRecord(metrics)) == found
    content = RecordDict({"metrics": MetricRecord(metrics)})
    assert read_accuracy(content) == found.get("accuracy")


def test_the_log_has_amounts_that_can_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder((), None)
    phase = opened(recorder)
    recorder.arrived(phase, 1, seconds=1.0, bytes_up=1_234)
    with caplog.at_level(logging.INFO, logger="flwr"):
        recorder.closed(phase, virtual_seconds=None, seconds_busy=0.0)
    assert "156 B down, 1.23 kB up" in caplog.text


def test_an_evaluation_uploads_no_model() -> None:
    recorder = Recorder((), None)
    phase = opened(recorder, "evaluate")
    recorder.arrived(phase, 1, seconds=3.0, bytes_up=7)
    recorder.read(phase, reply(1))
    assert phase.records[1].raw_bytes_up == 0


def test_what_an_app_adds_to_the_model_counts_on_both_sides() -> None:
    recorder = Recorder((), None)
    control = ArrayRecord([np.zeros(10, np.float32)])
    added = record_nbytes(control)
    phase = Phase("train", 2)
    phase.requests[1] = Request(
        1, "arrays", MODEL, {"control": control}, 50 + added, Work()
    )
    recorder.opened(phase)
    assert phase.records[1].raw_bytes_down == 400 + added
    recorder.arrived(phase, 1, seconds=1.0, bytes_up=9 + added)
    answer = reply(1)
    answer.content["control-delta"] = control
    recorder.read(phase, answer)
    assert phase.records[1].raw_bytes_up == 400 + added


def test_a_refused_reply_counts_no_examples_and_keeps_its_bytes(caplog) -> None:
    recorder = Recorder((), None)
    phase = opened(recorder)
    recorder.arrived(phase, 2, seconds=1.0, bytes_up=9)
    recorder.read(phase, reply(2))
    with caplog.at_level(logging.WARNING, logger="flwr"):
        kept = recorder.refused(phase, 2, "line\nbreak")
    assert kept == "line\\nbreak"
    record = phase.records[2]
    assert (record.dropped, record.examples, record.bytes_up) == (kept, 0.0, 9)
    assert "node 2" in caplog.text


def test_who_came_first_waits_for_the_last() -> None:
    recorder = Recorder((), None)
    phase = opened(recorder)
    recorder.arrived(phase, 1, seconds=1.0, bytes_up=1)
    recorder.arrived(phase, 2, seconds=4.0, bytes_up=1)
    assert recorder.timed(phase) is None  # no virtual clock
    waiting = [phase.records[node].waiting for node in (1, 2, 3)]
    assert waiting == pytest.approx([3.0, 0.0, 0.0])


def test_records_are_handed_on_and_an_empty_phase_is_none() -> None:
    told: list[RoundRecord] = []
    recorder = Recorder((told.append,), None)
    recorder.closed(Phase("train", 1), virtual_seconds=None, seconds_busy=0.0)
    assert told == recorder.history == []
    recorder.closed(opened(recorder), virtual_seconds=7.0, seconds_busy=0.0)
    assert told == recorder.history
    assert (told[0].server_round, told[0].virtual_seconds) == (2, 7.0)
