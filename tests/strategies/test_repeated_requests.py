"""A device whose reply was lost answers the same request again, and it counts."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import CompressionMod
from flwr_caesar.runner.inline import through_the_wire
from flwr_caesar.strategies import Caesar, ErrorBounded, FedComLoc, TopK
from flwr_caesar.transport import DeviceReport, arrays_to_record

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid


class Twice(LocalGrid):
    """Every request reaches its device twice; only the second reply arrives."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.both: list[tuple[RecordDict, RecordDict]] = []

    def _reply(self, message_id: str, message: Message) -> Message:
        copy = Message(
            through_the_wire(message.content),
            dst_node_id=message.metadata.dst_node_id,
            message_type=message.metadata.message_type,
        )
        copy.metadata.__dict__["_message_id"] = message_id
        first, second = (LocalGrid._reply(self, message_id, m) for m in (message, copy))
        self.both.append((first.content, RecordDict(dict(second.content.items()))))
        return second


def _strategy(name: str):
    inner = FedAvg(fraction_evaluate=0.0)
    return {
        "topk": lambda: TopK(inner, density=0.1),
        "caesar": lambda: Caesar(inner),
        "fedcomloc": lambda: FedComLoc(inner, lr=0.1),
        "error_bounded": lambda: ErrorBounded(inner, check_bound=True),
    }[name]()


@pytest.mark.parametrize("name", ["topk", "caesar", "fedcomloc", "error_bounded"])
def test_a_request_that_comes_twice_is_answered_with_the_same_upload(name):
    app = numpy_app(mods=[CompressionMod(labels=lambda context: [3, 4])])
    grid, strategy = Twice(app, 3), _strategy(name)
    result = strategy.start(grid, initial_model(), num_rounds=3, timeout=1.0)
    assert not any(record.dropped for record in strategy.history)
    assert getattr(strategy, "resets", 0) == 0
    asked = 0
    for first, second in grid.both:
        said = [DeviceReport.read(content) for content in (first, second)]
        ids = [header for _, header in said]
        assert ids[0].upload_id == ids[1].upload_id
        assert first.metric_records == second.metric_records
        reports = [report for report, _ in said]
        assert reports[0].part == reports[1].part
        assert reports[0].labels == reports[1].labels
        asked += bool(reports[1].labels)
    assert asked == (3 if name == "caesar" else 0)
    assert not np.array_equal(
        result.arrays["weight"].numpy(), initial_model()["weight"].numpy()
    )


def _noting(msg, context, call_next):
    reply = call_next(msg, context)
    if "arrays" in reply.content:
        mask = np.arange(9, dtype=np.int32) * context.node_id
        reply.content["mask"] = arrays_to_record({"mask": mask})
        reply.content["notes"] = ConfigRecord({"raw": bytes([context.node_id])})
    return reply


def test_a_request_that_comes_twice_keeps_the_other_records_of_the_app():
    grid = Twice(numpy_app(mods=[CompressionMod(), _noting]), 3)
    strategy = TopK(FedAvg(fraction_evaluate=0.0), density=0.1)
    strategy.start(grid, initial_model(), num_rounds=1, timeout=1.0)
    assert not any(d.dropped for record in strategy.history for d in record.devices)
    assert len(grid.both) == 3
    for first, second in grid.both:
        assert second["notes"] == first["notes"]
        assert second["mask"] == first["mask"]
        assert set(second) == set(first)
