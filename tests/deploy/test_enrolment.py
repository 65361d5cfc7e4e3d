from __future__ import annotations

import base64
import json
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.deploy.control import KeySpentError, Node, SuperLinkDownError
from flwr_caesar.deploy.device_key import load_key, make_key, public_pem
from flwr_caesar.deploy.enrolment import (
    RefusedError,
    approve,
    enrol,
    issue_tickets,
    numbered,
)
from flwr_caesar.deploy.enrolment_request import (
    EnrolmentRequest,
    RequestError,
    make_request,
    read_request,
)
from flwr_caesar.deploy.fleet import Device, Fleet, FleetError
from flwr_caesar.deploy.pki import make_authority
from flwr_caesar.deploy.registration import reconcile
from flwr_caesar.deploy.ticket import Ticket

AUTHORITY = make_authority().certificate
KEYS = [ec.generate_private_key(ec.SECP384R1()) for _ in range(4)]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet.create(tmp_path / "fleet.db")


def tickets(fleet: Fleet, *names: str, **options: object) -> list[Ticket]:
    return issue_tickets(
        fleet,
        names,
        address="fleet.example:8443",
        authority=AUTHORITY,
        **options,  # type: ignore[arg-type]
    )


def asked(ticket: Ticket, who: int, machine: str | None = None) -> EnrolmentRequest:
    text = make_request(
        KEYS[who],
        name=ticket.name,
        machine=machine or f"{who:064x}",
        token=ticket.token,
    )
    return read_request(text.encode())


def test_names_are_numbered_on() -> None:
    assert numbered("jetson-07", 3) == ["jetson-07", "jetson-08", "jetson-09"]
    assert numbered("board9", 3) == ["board9", "board10", "board11"]
    assert numbered("pi", 2) == ["pi-00", "pi-01"]
    assert numbered("pi", 1) == ["pi"]
    with pytest.raises(FleetError, match="at least one"):
        numbered("pi", 0)


def test_a_device_joins_once_and_hears_its_place_again(fleet: Fleet) -> None:
    (ticket,) = tickets(fleet, "jetson-07", partition=7, partitions=40)
    device = enrol(fleet, asked(ticket, 0))
    assert (device.name, device.partition_id, device.num_partitions) == (
        "jetson-07",
        7,
        40,
    )
    assert enrol(fleet, asked(ticket, 0)) == device  # its first answer was lost
    assert fleet.devices() == [device]


def test_a_used_ticket_is_refused_to_another_key(fleet: Fleet) -> None:
    (ticket,) = tickets(fleet, "jetson-07")
    enrol(fleet, asked(ticket, 0))
    with pytest.raises(RefusedError, match="used already, by another device"):
        enrol(fleet, asked(ticket, 1))
    assert [device.public_key for device in fleet.devices()] == [public_pem(KEYS[0])]


def test_a_ticket_is_for_its_name_only(fleet: Fleet) -> None:
    one, other = tickets(fleet, "one", "other")
    with pytest.raises(RefusedError, match="for one, not for other"):
        enrol(fleet, asked(replace(one, name=other.name), 0))
    assert fleet.devices() == []
    enrol(fleet, asked(one, 0))  # and is still good


def test_a_key_or_a_machine_is_refused_twice(fleet: Fleet) -> None:
    first, second = tickets(fleet, "first", "second")
    enrol(fleet, asked(first, 0, machine="a" * 64))
    with pytest.raises(RefusedError, match="This key is in the fleet as first"):
        enrol(fleet, asked(second, 0, machine="b" * 64))
    with pytest.raises(RefusedError, match="This machine is in the fleet as first"):
        enrol(fleet, asked(second, 1, machine="a" * 64))
    enrol(fleet, asked(second, 1, machine="b" * 64))


def test_machines_that_cannot_be_told_apart_may_be_many(fleet: Fleet) -> None:
    for who, ticket in enumerate(tickets(fleet, "first", "second")):
        enrol(fleet, replace(asked(ticket, who), machine=None))
    assert len(fleet.devices()) == 2


def test_an_expired_an_unknown_and_a_replaced_ticket_are_refused(fleet: Fleet) -> None:
    (late,) = tickets(fleet, "late", days=1e-9)
    time.sleep(0.01)
    with pytest.raises(RefusedError, match=r"expired on .* UTC"):
        enrol(fleet, asked(late, 0))
    elsewhere = replace(late, token=b"0" * 16)
    with pytest.raises(RefusedError, match="does not know this ticket"):
        enrol(fleet, asked(elsewhere, 0))
    (old,) = tickets(fleet, "twice")
    (new,) = tickets(fleet, "twice")
    with pytest.raises(RefusedError, match="newer one took its place"):
        enrol(fleet, asked(old, 0))
    enrol(fleet, asked(new, 0))


def test_of_many_who_use_a_ticket_at_once_one_gets_in(fleet: Fleet) -> None:
    for name in (f"wanted-{i}" for i in range(12)):
        (ticket,) = tickets(fleet, name)
        requests = [asked(ticket, who) for who in range(4)]
        barrier = threading.Barrier(len(requests))
        outcomes: list[object] = []

        def attempt(
            request: EnrolmentRequest,
            barrier: threading.Barrier = barrier,
            outcomes: list[object] = outcomes,
        ) -> None:
            own = Fleet(fleet.path)
            barrier.wait()
            try:
                outcomes.append(enrol(own, request))
            except FleetError as err:
                outcomes.append(err)

        threads = [threading.Thread(target=attempt, args=(r,)) for r in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(isinstance(outcome, Device) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, RefusedError) for outcome in outcomes) == 3
        with fleet.transaction() as database:
            database.execute("DELETE FROM device")


def test_the_server_keeps_no_token(fleet: Fleet) -> None:
    (ticket,) = tickets(fleet, "jetson-07")
    assert ticket.token not in fleet.path.read_bytes()


def test_partitions_are_the_lowest_free_and_stay_with_a_name(fleet: Fleet) -> None:
    batch = tickets(fleet, "a", "b", "c")
    assert [ticket.partition_id for ticket in batch] == [0, 1, 2]
    assert {ticket.num_partitions for ticket in batch} == {3}
    for who, ticket in enumerate(batch):
        enrol(fleet, asked(ticket, who))
    (more,) = tickets(fleet, "d")
    assert (more.partition_id, more.num_partitions) == (3, 4)
    fleet.remove("b")
    fleet.remove("a")
    (back,) = tickets(fleet, "b")
    assert back.partition_id == 1
    with pytest.raises(FleetError, match="--partitions 41 or more"):
        tickets(fleet, "e", partition=40, partitions=40)


def test_a_taken_name_has_to_be_removed_first(fleet: Fleet) -> None:
    (ticket,) = tickets(fleet, "jetson-07")
    enrol(fleet, asked(ticket, 0))
    with pytest.raises(FleetError, match="fleet remove jetson-07"):
        tickets(fleet, "jetson-08", "jetson-07")
    fleet.remove("jetson-07")
    (again,) = tickets(fleet, "jetson-07")
    with pytest.raises(RefusedError, match="removed from the fleet"):
        enrol(fleet, asked(again, 0))
    with pytest.raises(RefusedError, match="removed from the fleet"):
        enrol(fleet, asked(ticket, 0))
    assert enrol(fleet, asked(again, 1)).name == "jetson-07"


def test_a_name_that_a_file_or_a_metric_could_not_have_is_refused(fleet: Fleet) -> None:
    for name in ("", "a/b", "-x", 'x"y', "x" * 65, "ä"):
        with pytest.raises(FleetError, match="is no name"):
            tickets(fleet, name)


def test_a_person_may_let_in_a_device_without_a_ticket(fleet: Fleet) -> None:
    text = make_request(KEYS[0], name="offline", machine=None, token=None)
    request = read_request(text.encode())
    with pytest.raises(RefusedError, match="has no ticket"):
        enrol(fleet, request)
    device, ticket = approve(
        fleet, request, address="fleet.example:8443", authority=AUTHORITY
    )
    assert fleet.devices() == [device]
    assert enrol(fleet, asked(ticket, 0)) == device
    with pytest.raises(RefusedError, match="by another device"):
        enrol(fleet, asked(ticket, 1))
    with pytest.raises(RefusedError, match="This key is in the fleet"):
        approve(fleet, request, address="fleet.example:8443", authority=AUTHORITY)


# --- the request --------------------------------------------------------------------


def test_a_request_says_what_was_asked_and_holds_no_private_key(tmp_path: Path) -> None:
    key = make_key(tmp_path / "device.key")
    text = make_request(key, name="jetson-07", machine="a" * 64, token=b"secret")
    request = read_request(text.encode())
    assert request.name == "jetson-07"
    assert request.public_key == public_pem(load_key(tmp_path / "device.key"))
    assert request.token == b"secret"
    number = key.private_numbers().private_value
    assert base64.b64encode(number.to_bytes(48, "big")).decode()[:20] not in text
    assert (tmp_path / "device.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "other"),
        ("machine", "b" * 64),
        ("machine", None),
        ("token", None),
        ("version", "9.9"),
        ("public-key", public_pem(KEYS[1]).decode()),
    ],
)
def test_a_changed_request_is_refused(field: str, value: str | None) -> None:
    body = json.loads(
        make_request(KEYS[0], name="jetson-07", machine="a" * 64, token=b"secret")
    )
    body[field] = value
    with pytest.raises(RequestError, match="changed after the device had signed"):
        read_request(json.dumps(body).encode())


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists) | st.binary())
def test_any_bytes_are_a_request_or_a_clear_error(value: object) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(RequestError):
        read_request(data)


@given(
    st.dictionaries(
        st.sampled_from(["name", "public-key", "machine", "token", "signature"]),
        st.none() | st.integers() | st.text() | st.lists(st.text()),
    )
)
def test_any_values_are_a_clear_error(values: dict[str, object]) -> None:
    body = json.loads(make_request(KEYS[0], name="x", machine=None, token=None))
    same = {**body, **values} == body
    if not same:
        with pytest.raises(RequestError):
            read_request(json.dumps({**body, **values}).encode())


def test_a_key_that_flower_does_not_take_is_refused() -> None:
    text = make_request(
        ec.generate_private_key(ec.SECP256K1()), name="x", machine=None, token=None
    )
    with pytest.raises(RequestError, match="P-256 or P-384"):
        read_request(text.encode())


# --- the fleet file -----------------------------------------------------------------


def test_a_missing_a_later_and_a_broken_fleet_file_are_told_apart(
    tmp_path: Path, fleet: Fleet
) -> None:
    with pytest.raises(FleetError, match="restore it from a backup"):
        Fleet(tmp_path / "none.db")
    with sqlite3.connect(fleet.path) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(FleetError, match="version 2"):
        Fleet(fleet.path)
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database" * 100)
    with pytest.raises(FleetError, match="cannot be used"):
        Fleet(broken)


# --- Flower's list of keys ----------------------------------------------------------


class FakeControl:
    def __init__(self) -> None:
        self.known: dict[bytes, Node] = {}
        self.spent: set[bytes] = set()
        self.down = False

    def nodes(self) -> dict[bytes, Node]:
        if self.down:
            raise SuperLinkDownError("down")
        return dict(self.known)

    def register(self, public_key: bytes, name: str) -> int:
        if public_key in self.spent:
            raise KeySpentError(name)
        node_id = 2**64 - 1 - len(self.known)
        self.known[public_key] = Node(node_id, name, "registered")
        return node_id

    def unregister(self, node_id: int) -> None:
        (key,) = [k for k, node in self.known.items() if node.node_id == node_id]
        del self.known[key]
        self.spent.add(key)


def test_flowers_list_becomes_what_the_fleet_file_says(fleet: Fleet) -> None:
    control = FakeControl()
    for who, ticket in enumerate(tickets(fleet, "a", "b", "c")):
        enrol(fleet, asked(ticket, who))
    by_hand = b"registered by Flower's own command"
    control.register(by_hand, "other")
    assert reconcile(fleet, control) == 3  # type: ignore[arg-type]
    assert fleet.device("a").node_id == control.known[public_pem(KEYS[0])].node_id
    assert reconcile(fleet, control) == 0  # type: ignore[arg-type]
    fleet.remove("b")
    assert reconcile(fleet, control) == 1  # type: ignore[arg-type]
    assert set(control.known) == {by_hand, public_pem(KEYS[0]), public_pem(KEYS[2])}
    control.known.clear()  # Flower lost its database
    assert reconcile(fleet, control) == 2  # type: ignore[arg-type]
    assert fleet.device("a").node_id == control.known[public_pem(KEYS[0])].node_id


def test_a_key_that_flower_does_not_take_back_holds_up_no_other(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    control = FakeControl()
    for who, ticket in enumerate(tickets(fleet, "a", "b")):
        enrol(fleet, asked(ticket, who))
    control.spent.add(public_pem(KEYS[0]))
    assert reconcile(fleet, control) == 1  # type: ignore[arg-type]
    assert "does not take the key of a again" in caplog.text
    assert fleet.device("b").node_id is not None
