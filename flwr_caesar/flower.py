"""What we use of Flower beyond `flwr.app`, `flwr.clientapp` and `flwr.serverapp`.

These names are Flower's own affair and move between its versions, so what depends on a
version has its one place here. ``tests/test_flower_contract.py`` checks each of them,
and every public name that we use, against the Flower that is installed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)


def flower_version() -> str:
    """Return name and version of the installed Flower, such as ``"flwr 1.41.0"``."""
    for package in ("flwr-nightly", "flwr"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "flwr"


try:
    from flwr.app.message import make_message
    from flwr.clientapp.typing import ClientAppCallable
    from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
    from flwr.supercore import log
    from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
    from flwr.supercore.differential_privacy import KEY_CLIPPING_NORM
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
except ImportError as error:
    raise ImportError(
        f"flwr-caesar cannot work with {flower_version()}: {error}; install another "
        "version of flwr, or a newer flwr-caesar",
        name=error.name,
    ) from error

__all__ = [
    "KEY_CLIPPING_NORM",
    "ClientAppCallable",
    "ErrorCode",
    "NodeInfo",
    "Run",
    "act_in_run",
    "aggregate_metricrecords",
    "arrays_in",
    "configs_in",
    "error_reply",
    "flower_version",
    "log",
    "metrics_in",
    "readdress",
    "record_of",
]


def arrays_in(content: RecordDict) -> dict[str, ArrayRecord]:
    """Return the ArrayRecords of a content by name.

    ``content.array_records`` are the same, each of which Flower checks and puts back
    into the content: to read them takes ten times as long.
    """
    return {n: each for n, each in content.items() if isinstance(each, ArrayRecord)}


def configs_in(content: RecordDict) -> dict[str, ConfigRecord]:
    """Return the ConfigRecords of a content by name; see `arrays_in`."""
    return {n: each for n, each in content.items() if isinstance(each, ConfigRecord)}


def metrics_in(content: RecordDict) -> dict[str, MetricRecord]:
    """Return the MetricRecords of a content by name; see `arrays_in`."""
    return {n: each for n, each in content.items() if isinstance(each, MetricRecord)}


def record_of(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Return a record that holds these Arrays; ``ArrayRecord(arrays)`` makes others."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = array
    return record


def act_in_run(run_id: int) -> None:
    """Let messages that this process makes belong to a run, sent by its server."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = run_id


def readdress(
    message: Message,
    *,
    message_id: str | None = None,
    src_node_id: int | None = None,
    reply_to_message_id: str | None = None,
) -> None:
    """Change whom a message is from and what it answers, as only Flower itself can.

    Parameters
    ----------
    message : Message
        To be changed in place.
    message_id, src_node_id, reply_to_message_id : optional
        What its metadata say afterwards; None leaves them as they are.
    """
    fields = {
        "_message_id": message_id,
        "_src_node_id": src_node_id,
        "_reply_to_message_id": reply_to_message_id,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    message.metadata.__dict__.update(given)


def error_reply(message_id: str, reason: str) -> Message:
    """Return what stands for a reply that cannot be had.

    Parameters
    ----------
    message_id : str
        Of the request.
    reason : str
        Why, in words.
    """
    metadata = Metadata(
        run_id=0,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=message_id,
        group_id="",
        created_at=time.time(),
        ttl=0.0,
        message_type=SYSTEM_MESSAGE_TYPE,
    )
    return make_message(metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, reason))
