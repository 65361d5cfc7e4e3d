"""What a server spends on a reply, and on a round whatever the replies.

Caesar's rounds of an 11-million-parameter model with few replies and with many, in one
process: the difference is what replies cost, the rest what a round does. Replies are
made when they are pulled; that is not counted. Writes docs/benchmarks/server.md.

    python benchmarks/server.py
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from memory import ReplayGrid
from models import resnet18_arrays

from flwr_caesar.codec import (
    Codec,
    CodecState,
    Layout,
    get_codec,
    kernel,
    update_layout,
)
from flwr_caesar.codec.contract.frame import stamp
from flwr_caesar.strategies import Caesar
from flwr_caesar.sync.protocol import UPDATE, UploadHeader
from flwr_caesar.transport import DeviceReport, Plan, arrays_to_record, frame_to_record

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "server.md"


class UploadingGrid(ReplayGrid):
    """Devices that upload an update by whatever codec they are asked for.

    Attributes
    ----------
    seconds : float
        CPU time spent on making the replies.
    """

    def __init__(self, num_nodes: int, model: dict[str, np.ndarray[Any, Any]]) -> None:
        super().__init__(num_nodes, RecordDict())
        self.seconds = 0.0
        rng = np.random.default_rng(1)
        self._update = {
            name: (a.std() * 1e-2 * rng.laplace(size=a.shape)).astype(np.float32)
            if a.dtype == np.float32
            else a
            for name, a in model.items()
        }
        self._state = CodecState(update_layout(Layout.of(model)))
        self._frames: dict[Codec, bytes] = {}
        self._uploads: dict[int, list[int]] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Make the replies asked for."""
        start = time.thread_time()
        replies = [self._reply(each) for each in message_ids]
        self.seconds += time.thread_time() - start
        return replies

    def _reply(self, message_id: str) -> Message:
        request = self.requests[message_id]
        node = request.metadata.dst_node_id
        plan, asked = Plan.read(request.content)
        codec = get_codec(plan.upload)
        if codec not in self._frames:
            self._frames[codec] = codec.encode(self._update, self._state)[0]
        frame = stamp(
            self._frames[codec],
            lineage=asked.lineage,
            base_version=asked.target[0],
        )
        token = node.to_bytes(16, "big")
        known = tuple(self._uploads.setdefault(node, []))
        upload = int.from_bytes(np.random.default_rng().bytes(7), "big")
        header = UploadHeader(asked.nonce, token, UPDATE, upload_id=upload, known=known)
        self._uploads[node] = [*known, upload][-8:]
        content = RecordDict({"metrics": MetricRecord({"num-examples": 1.0})})
        content[plan.record] = frame_to_record(frame, DeviceReport().note(header))
        message = Message(content, dst_node_id=1, message_type="train")
        message.metadata.__dict__["_src_node_id"] = node
        message.metadata.__dict__["_reply_to_message_id"] = message_id
        return message


def rounds(num_replies: int, num_rounds: int) -> list[tuple[float, float]]:
    """Return CPU and wall seconds of each round but the first."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    model = resnet18_arrays()
    grid = UploadingGrid(num_replies, model)
    ends: list[tuple[float, float, float]] = []
    strategy = Caesar(
        FedAvg(fraction_evaluate=0.0, min_available_nodes=1, min_train_nodes=1),
        on_record=lambda _: ends.append(
            (time.process_time(), time.monotonic(), grid.seconds)
        ),
    )
    strategy.start(grid, arrays_to_record(model), num_rounds=num_rounds)
    for record in strategy.history:
        if record.dropped:
            raise SystemExit(f"replies were dropped: {record.dropped}")
    return [
        (cpu - cpu_0 - (made - made_0), wall - wall_0)
        for (cpu_0, wall_0, made_0), (cpu, wall, made) in pairwise(ends)
    ]


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replies", type=int, nargs=2, default=(2, 8))
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    few, many = args.replies
    rows = []
    native = kernel.native
    for name, used in (("C kernel", native), ("numpy", None)):
        if name == "C kernel" and native is None:
            continue
        kernel.native = used
        cpu, wall = {}, {}
        for count in (few, many):
            found = rounds(count, args.rounds)
            cpu[count], wall[count] = map(min, zip(*found, strict=True))
            print(f"{name}, {count} replies: {found}", flush=True)
        reply = (cpu[many] - cpu[few]) / (many - few)
        beside, last = cpu[few] - few * reply, wall[many]
        rows.append(f"| {name} | {reply:.3f} | {beside:.2f} | {last:.1f} |")
    cores = len(os.sched_getaffinity(0))
    load = " ".join(f"{each:.0f}" for each in os.getloadavg())
    command = f"python benchmarks/server.py --replies {few} {many}"
    lines = [
        "# What a round costs the server",
        "",
        "Training rounds of `Caesar(FedAvg())` with ResNet-18's 122 tensors (11.2",
        f"million parameters), without a checkpoint, of {few} and of {many} replies;",
        f"the least of {args.rounds - 1} rounds after the first. The difference is",
        "what replies cost in CPU seconds, the rest what a round costs beside them.",
        "Replies are made in the same process, which the CPU seconds leave out and",
        f"the last column does not. Threads decode them, on {cores} cores.",
        "",
        f"| coder | CPU s a reply | CPU s a round beside them | s a round of {many} |",
        "| --- | --: | --: | --: |",
        *rows,
        "",
        f"Load of the machine at the end, its own share included: {load}.",
        "",
        describe(f"{command} --rounds {args.rounds}"),
    ]
    print("\n".join(rows))
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
