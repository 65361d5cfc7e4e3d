"""Messages as Flower makes them, and tickets as the server gives them."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from flwr_caesar.deploy.enrolment_request import read_request
from flwr_caesar.deploy.pki import make_authority
from flwr_caesar.deploy.ticket import Ticket, new_token
from flwr_caesar.flower import act_in_run
from tests.sync.conversation_json import content_to_json

from .jvm import Jvm


@pytest.fixture(autouse=True)
def run() -> None:
    """Let messages be made outside of a run."""
    act_in_run(1)


FRAME = "flwr_caesar.frame"


def every_value() -> RecordDict:
    """Return records of all kinds, with arrays of none, one and three chunks."""
    rng = np.random.default_rng(1)
    chunk = rng.bytes(5 << 20)
    arrays = {
        "frame": Array("uint8", (2 * len(chunk) + 4,), FRAME, chunk + chunk + b"tail"),
        "näme": Array("uint8", (0,), FRAME, b""),
    }
    return RecordDict(
        {
            "arrays": ArrayRecord(arrays),
            "metrics": MetricRecord(
                {"num-examples": 0, "loss": -0.5, "many": [1, -2], "some": [0.5, 1.5]}
            ),
            "config": ConfigRecord(
                {
                    "": b"\x00\xff",
                    "zero": 0.0,
                    "negative": -(1 << 62),
                    "yes": True,
                    "no": False,
                    "text": "größe",
                    "flags": [True, False],
                    "texts": ["a", ""],
                    "bytes": [b"", b"b"],
                }
            ),
            "empty": ConfigRecord({}),
        }
    )


def as_json(content: RecordDict) -> Any:
    """Return records as a conversation has them, with bytes in lists too."""

    def plain(value: bytes) -> dict[str, str]:
        return {"base64": b64encode(value).decode()}

    return json.loads(json.dumps(content_to_json(content), default=plain))


def test_messages_of_flower_are_read(jvm: Jvm) -> None:
    content = every_value()
    message = Message(content, dst_node_id=1, message_type="train")
    objects = {i: o.deflate() for i, o in get_all_nested_objects(message).items()}
    reply = jvm.ask("inflate", list(objects.values()), root=message.object_id)
    assert reply.values["content"] == as_json(content)


def test_flower_reads_messages(jvm: Jvm) -> None:
    content = every_value()
    reply = jvm.ask("deflate", content=as_json(content))
    found = dict(zip(reply.values["ids"], reply.blobs, strict=True))
    assert all(get_object_id(data) == key for key, data in found.items())
    assert len(found) == len(reply.blobs) == 10  # two equal chunks are one object
    root = reply.values["root"]
    message = inflate_object_from_contents(root, dict(found))
    assert isinstance(message, Message)
    assert as_json(message.content) == as_json(content)
    assert reply.values["message"] == root
    order = [part.object_id for part in iterate_object_tree(get_object_tree(message))]
    assert len(set(order)) == len(found)  # Flower's own JSON has other white space
    assert reply.values["ids"][-1] == root
    told = message.metadata
    assert (told.run_id, told.src_node_id, told.dst_node_id) == (
        (1 << 64) - 5,
        (1 << 64) - 7,
        1,
    )
    assert (told.reply_to_message_id, told.group_id) == ("request", "group")
    assert (told.created_at, told.ttl) == (1010.5, 49.5)
    assert told.message_type == "train"


def test_flower_reads_plain_arrays(jvm: Jvm) -> None:
    arrays = {
        "scalar": np.array(3, np.int64),
        "vector": np.arange(3, dtype=np.float32),
        "matrix": np.eye(3, 2, dtype=np.float16),
        "flags": np.array([True, False]),
    }
    content = RecordDict(
        {"plain": ArrayRecord({n: Array(a) for n, a in arrays.items()})}
    )
    reply = jvm.ask("deflate", content=as_json(content))
    found = dict(zip(reply.values["ids"], reply.blobs, strict=True))
    message = inflate_object_from_contents(reply.values["root"], found)
    assert isinstance(message, Message)
    for name, array in message.content.array_records["plain"].items():
        np.testing.assert_array_equal(array.numpy(), arrays[name])
        assert array.numpy().dtype == arrays[name].dtype


def test_flower_reads_errors(jvm: Jvm) -> None:
    reply = jvm.ask("deflate", reason="too hot")
    found = dict(zip(reply.values["ids"], reply.blobs, strict=True))
    message = inflate_object_from_contents(reply.values["root"], found)
    assert isinstance(message, Message)
    assert (message.error.code, message.error.reason) == (2, "too hot")


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"RecordDict ", b"RecordList "),
        (b" 0\x00", b" 1\x00"),
        (b"Message ", b"Message  "),
        (b'{"config"', b'{"config'),
    ],
)
def test_damaged_objects_are_refused(jvm: Jvm, good: bytes, bad: bytes) -> None:
    """Whoever damages an object may give it the id that it then has."""
    content = RecordDict({"config": ConfigRecord({})})
    message = Message(content, dst_node_id=1, message_type="train")
    parts = [part.deflate() for part in get_all_nested_objects(message).values()]
    renamed: dict[bytes, bytes] = {}
    damaged = []
    for part in parts:  # children first
        made = part.replace(good, bad, 1)
        for old, new in renamed.items():
            made = made.replace(old, new)
        renamed[get_object_id(part).encode()] = get_object_id(made).encode()
        damaged.append(made)
    assert damaged != parts
    root = get_object_id(damaged[-1])
    assert "refused" in jvm.ask("inflate", damaged, root=root).values


@pytest.fixture
def ticket() -> Ticket:
    return Ticket(
        address="fleet.example:8443",
        name="phone-1",
        partition_id=0,
        num_partitions=1,
        token=new_token(),
        expires_at=2_000_000_000,
        authority=make_authority().certificate,
    )


def test_a_ticket_of_the_server_makes_a_request_that_it_takes(
    jvm: Jvm, ticket: Ticket
) -> None:
    values = jvm.ask("enrol", ticket=ticket.to_text()).values
    request = read_request(values["request"].encode())
    assert request.name == ticket.name
    assert request.token == ticket.token
    assert request.public_key == values["key"].encode()
    assert request.version == "1.2.3"
    assert values["address"] == ticket.address
    assert values["authority"].encode() == ticket.authority_pem


def test_a_damaged_ticket_is_refused(jvm: Jvm, ticket: Ticket) -> None:
    text = ticket.to_text()
    for bad in (
        text[:-1],
        text[:50] + text[51:],
        "fct2." + text[5:],
        "",
        "fct1.",
        "fct1.AAAA",
    ):
        assert "refused" in jvm.ask("enrol", ticket=bad).values
    spread = " \n".join(text[i : i + 40] for i in range(0, len(text), 40))
    assert "request" in jvm.ask("enrol", ticket=spread).values


def test_what_a_scanner_returns_is_a_ticket(jvm: Jvm, ticket: Ticket) -> None:
    for scanned in (
        ticket.to_uri(),
        f"\ufeff{ticket.to_uri()}\r\n",
        ticket.to_uri().replace("flwr-caesar:", " FLWR-Caesar://"),
    ):
        assert jvm.ask("enrol", ticket=scanned).values["address"] == ticket.address
    assert "refused" in jvm.ask("enrol", ticket="https://fleet.example/fct1.").values
