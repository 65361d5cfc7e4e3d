"""docs/device-protocol.md says of Flower and of us what both of them do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flwr.common import constant
from flwr.proto import fleet_pb2, message_pb2, run_pb2
from flwr.supercore import constant as core
from flwr.supercore.error import ApiErrorCode
from flwr.superlink.routers.fleet.router import router

from flwr_caesar.methods.halves import DEVICE_HALVES
from flwr_caesar.strategies.exchange import most_frame_bytes
from flwr_caesar.sync import protocol, short, state
from flwr_caesar.telemetry import LONGEST_TEXT, MOST_KEYS
from flwr_caesar.transport import abilities, envelope, plan, report, seconds

TEXT = (Path(__file__).parents[1] / "docs" / "device-protocol.md").read_text("utf-8")
CALLS = {
    "register-node": ("RegisterNodeFleet", {1: "public_key"}, {1: "node_id"}),
    "activate-node": (
        "ActivateNode",
        {1: "public_key", 2: "heartbeat_interval"},
        {1: "node_id"},
    ),
    "deactivate-node": ("DeactivateNode", {1: "node_id"}, {}),
    "unregister-node": ("UnregisterNodeFleet", {1: "node_id"}, {}),
    "send-node-heartbeat": (
        "SendNodeHeartbeat",
        {1: "node", 2: "heartbeat_interval"},
        {1: "success"},
    ),
    "pull-messages": (
        "PullMessages",
        {1: "node"},
        {2: "messages_list", 3: "message_object_trees"},
    ),
    "push-messages": (
        "PushMessages",
        {
            1: "node",
            2: "messages_list",
            3: "message_object_trees",
            4: "clientapp_runtime_list",
        },
        {3: "objects_to_push", 4: "session_id"},
    ),
    "get-run": ("GetRun", {1: "node", 2: "run_id"}, {1: "run"}),
    "get-fab": ("GetFab", {1: "node", 2: "hash_str", 3: "run_id"}, {1: "fab"}),
    "push-object": (
        "PushObject",
        {
            1: "node",
            2: "run_id",
            3: "object_id",
            4: "object_content",
            5: "session_id",
        },
        {1: "stored"},
    ),
    "pull-object": (
        "PullObject",
        {1: "node", 2: "run_id", 3: "object_id"},
        {1: "object_found", 2: "object_available", 3: "object_content"},
    ),
    "confirm-message-received": (
        "ConfirmMessageReceived",
        {1: "node", 2: "run_id", 3: "message_object_id"},
        {},
    ),
}
METADATA = {
    "1": "run_id",
    "2": "message_id",
    "3, 4": "src_node_id dst_node_id",
    "5": "reply_to_message_id",
    "6": "group_id",
    "7": "ttl",
    "8": "message_type",
    "9": "created_at",
    "10, 11": "src_task_id dst_task_id",
}


def section(title: str) -> str:
    return TEXT.split(f"# {title}\n", 1)[1].split("\n## ")[0]


def rows(text: str, first: str) -> list[list[str]]:
    """Return the cells of the table whose head begins with a cell."""
    head = f"| {first} |"
    lines = text[text.index(head) :].splitlines()
    table = lines[2 : next((i for i, line in enumerate(lines) if not line), None)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def numbers(cell: str) -> set[int]:
    return {int(number) for number in re.findall(r"`(\d+)`", cell)}


@pytest.mark.parametrize("row", rows(TEXT, "path"), ids=lambda row: row[0].strip("`"))
def test_a_call_is_flowers(row: list[str]) -> None:
    path, asked, answered = row
    name, request, response = CALLS[path.strip("`")]
    for cell, fields, kind in (
        (asked, request, "Request"),
        (answered, response, "Response"),
    ):
        assert numbers(cell) == set(fields)
        message = getattr(fleet_pb2, name + kind, None) or getattr(
            message_pb2, name + kind, None
        )
        message = message or _anywhere(name + kind)
        found = {f.number: f.name for f in message.DESCRIPTOR.fields}
        assert fields.items() <= found.items()


def _anywhere(name: str) -> type:
    from flwr.proto import fab_pb2, heartbeat_pb2

    for module in (run_pb2, fab_pb2, heartbeat_pb2):
        if hasattr(module, name):
            found: type = getattr(module, name)
            return found
    raise LookupError(name)


def test_there_are_twelve_calls() -> None:
    listed = {row[0].strip("`") for row in rows(TEXT, "path")}
    routes = {str(route.path) for route in router.routes}
    assert {path.rpartition("/")[2] for path in routes} == listed == set(CALLS)


def test_metadata_and_runs_are_flowers() -> None:
    found = {f.number: f.name for f in message_pb2.Metadata.DESCRIPTOR.fields}
    named = {cell: row for cell, *row in rows(TEXT, "field")[: len(METADATA)]}
    assert list(named) == list(METADATA)
    for cell, names in METADATA.items():
        places = [int(number) for number in cell.split(", ")]
        assert [found[place] for place in places] == names.split()
    run = {f.number: f.name for f in run_pb2.Run.DESCRIPTOR.fields}
    assert (run[1], run[5]) == ("run_id", "fab_hash")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("at most 5,242,880 bytes", constant.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE),
        ("from 5 s ahead", constant.SYSTEM_TIME_TOLERANCE),
        (
            "305 s behind",
            constant.SYSTEM_TIME_TOLERANCE + constant.TIMESTAMP_TOLERANCE,
        ),
        ("outside 10 to", constant.HEARTBEAT_MIN_INTERVAL),
        ("1,800 s |", constant.HEARTBEAT_MAX_INTERVAL),
        ("ends 180 s after", core.OBJECT_PUSH_SESSION_TTL_SECONDS),
        ("| 23 |", ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE),
        ("2001, 2002 |", ApiErrorCode.FLEET_SUPERNODE_UNREGISTRATION_DISABLED),
        ("| 2004 |", ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED),
        ("| 2007 |", ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED),
        ("2008, 2009 |", ApiErrorCode.FLEET_GET_FAB_FAILED),
        ("1003, 2003 |", ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL),
    ],
)
def test_a_number_of_flowers_is_right(words: str, value: int) -> None:
    assert words in " ".join(TEXT.split())
    assert f"{value:,}" in words or str(int(value)) in words


def test_the_headers_are_flowers() -> None:
    names = {row[0].strip("`") for row in rows(TEXT, "header")}
    assert names == {
        core.FLEET_HTTP_PUBLIC_KEY_HEADER,
        core.FLEET_HTTP_SIGNATURE_HEADER,
        constant.TIMESTAMP_HEADER,
    }


def test_the_plans_keys_and_defaults_are_ours() -> None:
    table = rows(TEXT[TEXT.index("**The plan's text**") :], "key")
    kinds = {"string": str, "object": dict, "integer, 0 or more": int}
    found = {key.strip("`"): kinds[kind] for key, kind, *_ in table}
    assert found == {key: type(value) for key, value in plan._DEFAULTS.items()}
    shown = {key.strip("`"): default.strip("`") for key, _, default, _ in table}
    assert shown == {
        key: str(value) if not isinstance(value, str) else f'"{value}"'
        for key, value in plan._DEFAULTS.items()
    }
    flags = [int(row[0]) for row in rows(section("3. A request"), "flag")]
    assert flags == [1 << bit for bit in range(plan._PLAN_FLAGS)]


def test_the_statuses_are_ours() -> None:
    table = rows(TEXT, "status")
    assert {row[1]: int(row[0]) for row in table} == protocol._STATUS_CODES


def test_the_parts_are_ours() -> None:
    prose = " ".join(TEXT.split())
    (line,) = re.findall(r"Parts of this release: (.*?)\. None", prose)
    assert set(re.findall(r"`(\w+)`", line)) == {*DEVICE_HALVES} - {""}


LIMITS = {
    "`applied` of a request, pending uploads of a device": [protocol.MAX_PENDING],
    "ids that a device remembers as settled": [state.MAX_APPLIED],
    "`known`": [protocol._MAX_KNOWN],
    "plan's text": [plan._MAX_PLAN_BYTES >> 20],
    "claims' text": [report._MAX_REPORT_BYTES >> 10],
    "`labels`": [report._MAX_LABELS],
    "`part`": [report._MAX_PART_CHARS],
    "`telemetry`": [report._MAX_TELEMETRY_CHARS, MOST_KEYS, LONGEST_TEXT],
    "`can`": [
        abilities.MAX_ABILITIES_CHARS,
        abilities._MOST,
        abilities._MOST,
        1,
        abilities._LONGEST,
    ],
    "a frame that is shortened": [envelope.MAX_SHORT_BYTES],
    "a frame that a note leads": [envelope.MAX_LED_BYTES >> 20, 1 << 16],
    "what is kept to say a reply again": [state.MAX_TOLD_BYTES >> 20, 1],
}


def test_the_limits_are_ours() -> None:
    table = {row[0]: row[1] for row in rows(TEXT, "of")}
    for name, expected in LIMITS.items():
        shown = re.findall(r"(?<![\^\d,])[\d,]*\d", table[name])
        values = [int(number.replace(",", "")) for number in shown]
        assert values[: len(expected)] == expected, name
    assert float(seconds.MAX_SECONDS) == 10**7
    assert "2 × the bytes of the model + 64 KiB" in table["an upload"]
    from flwr_caesar.codec import Layout

    assert most_frame_bytes(Layout(())) == 64 << 10
    assert (short.LEAST_BYTES, short.EXACT_BELOW) == (1 << 20, 1024)
