"""Server memory while aggregating 10 and 100 replies of an 11-million-parameter model.

Each case is a fresh process; its peak resident set is the kernel's own count. Replies
are made when they are pulled, as a SuperLink would deliver them, each with bytes of its
own. Writes docs/benchmarks/memory.md.

    python benchmarks/memory.py
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from environment import describe
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from models import resnet18_arrays

from flwr_caesar.codec import CodecState, Layout, get_codec, update_layout
from flwr_caesar.codec.contract.frame import stamp
from flwr_caesar.strategies import TopK
from flwr_caesar.sync.protocol import UPDATE, UploadHeader
from flwr_caesar.transport import (
    DeviceReport,
    Plan,
    arrays_to_record,
    frame_to_record,
    note_of,
    record_to_frame,
)

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "memory.md"


class ReplayGrid(Grid):
    """Answers every request with a copy of one reply."""

    def __init__(self, num_nodes: int, reply: RecordDict) -> None:
        self.num_nodes = num_nodes
        self.reply = reply
        self.requests: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Ignore the run."""

    @property
    def run(self) -> Run:
        """An empty run."""
        return Run.create_empty(run_id=1)

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Not used by Flower's strategies."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """Nodes from 1."""
        return range(1, self.num_nodes + 1)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Remember whom to answer."""
        self.requests = {str(i): message for i, message in enumerate(messages)}
        return list(self.requests)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Make the replies asked for."""
        replies = []
        for message_id in message_ids:
            content = RecordDict(
                {
                    key: _own_bytes(record)
                    if isinstance(record, ArrayRecord)
                    else record
                    for key, record in self.reply.items()
                }
            )
            request = self.requests[message_id]
            node = request.metadata.dst_node_id
            if note_of(request.content) is not None:
                _answer(node, request.content, content)
            message = Message(content, dst_node_id=1, message_type="train")
            message.metadata.__dict__["_src_node_id"] = node
            message.metadata.__dict__["_reply_to_message_id"] = message_id
            replies.append(message)
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Answer all at once, as Flower's own Grid does."""
        return self.pull_messages(self.push_messages(messages))


def _answer(node: int, request: RecordDict, content: RecordDict) -> None:
    """Make a reply one to this request, as a device of its own would."""
    _, asked = Plan.read(request)
    token = node.to_bytes(16, "big")
    header = UploadHeader(asked.nonce, token, UPDATE, upload_id=node, known=())
    frame = stamp(
        record_to_frame(content.array_records["arrays"]),
        lineage=asked.lineage,
        base_version=asked.target[0],
    )
    content["arrays"] = frame_to_record(frame, DeviceReport().note(header))


def _own_bytes(record: ArrayRecord) -> ArrayRecord:
    return ArrayRecord(
        {
            name: Array(a.dtype, a.shape, a.stype, bytes(bytearray(a.data)))
            for name, a in record.items()
        }
    )


def aggregate(strategy_name: str, num_replies: int) -> None:
    """Aggregate one round in this process."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    arrays = resnet18_arrays()
    reply = RecordDict({"metrics": MetricRecord({"num-examples": 1.0})})
    inner = FedAvg(fraction_evaluate=0.0)
    strategy: Strategy = inner
    if strategy_name == "fedavg":
        reply["arrays"] = arrays_to_record(arrays)
    else:
        strategy = TopK(inner, density=0.01)
        codec = get_codec({"id": "topk", "density": 0.01, "values": "float16"})
        state = CodecState(update_layout(Layout.of(arrays)))
        reply["arrays"] = frame_to_record(codec.encode(arrays, state)[0])
    strategy.start(
        ReplayGrid(num_replies, reply), arrays_to_record(arrays), num_rounds=1
    )
    if isinstance(strategy, TopK) and strategy.history[0].dropped:
        raise SystemExit(f"replies were dropped: {strategy.history[0].dropped}")


def peak_mb(strategy_name: str, num_replies: int) -> float:
    """Return the peak resident set of a fresh process, in MB."""
    command = [sys.executable, __file__, "--case", strategy_name, str(num_replies)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure all cases and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs=2, metavar=("STRATEGY", "REPLIES"))
    args = parser.parse_args()
    if args.case:
        aggregate(args.case[0], int(args.case[1]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
        return
    lines = [
        "# Server memory",
        "",
        "Peak resident set of a process that aggregates one round of an 11.2-million-",
        "parameter model (44.8 MB), interpreter and Flower included.",
        "",
        "| strategy | 10 replies, MB | 100 replies, MB | 100 / 10 |",
        "| --- | --- | --- | --- |",
    ]
    for name in ("fedavg", "topk"):
        few, many = peak_mb(name, 10), peak_mb(name, 100)
        lines.append(f"| {name} | {few:.0f} | {many:.0f} | {many / few:.2f} |")
        print(lines[-1], flush=True)
    lines += ["", describe("python benchmarks/memory.py")]
    TABLE.write_text("\n".join(lines) + "\n")
    print(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
