from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.deploy.pki import make_authority
from flwr_caesar.deploy.ticket import Ticket, TicketError, new_token
from flwr_caesar.deploy.ticket_qr import to_svg, to_terminal

AUTHORITY = make_authority().certificate
TICKET = Ticket(
    address="fleet.example:8443",
    name="jetson-07",
    partition_id=7,
    num_partitions=40,
    token=new_token(),
    expires_at=1_800_000_000,
    authority=AUTHORITY,
)


def test_a_ticket_is_read_as_it_was_written() -> None:
    assert Ticket.from_text(TICKET.to_text()) == TICKET


def test_line_breaks_of_a_mail_do_no_harm() -> None:
    text = TICKET.to_text()
    assert Ticket.from_text(f" {text[:80]}\n{text[80:]}\r\n") == TICKET


def test_it_fits_in_a_line_of_a_terminal_and_a_qr_code() -> None:
    assert len(TICKET.to_text()) < 1000


@pytest.mark.parametrize("end", range(5, len(TICKET.to_text()), 37))
def test_a_part_of_a_ticket_is_damaged(end: int) -> None:
    with pytest.raises(TicketError, match="damaged: copy the whole line"):
        Ticket.from_text(TICKET.to_text()[:end])


@given(st.integers(5, len(TICKET.to_text()) - 1), st.sampled_from("AZaz09-_+/=é"))
def test_a_changed_character_is_found(place: int, other: str) -> None:
    text = TICKET.to_text()
    changed = text[:place] + other + text[place + 1 :]
    try:
        read = Ticket.from_text(changed)
    except TicketError:
        return
    assert read == TICKET  # the character was the same, or its bits do not count


@given(st.text())
def test_any_text_is_a_ticket_or_a_clear_error(text: str) -> None:
    with pytest.raises(TicketError):
        Ticket.from_text(text)
    with pytest.raises(TicketError):
        Ticket.from_text("fct1." + text)


def test_other_text_is_told_what_a_ticket_is() -> None:
    with pytest.raises(TicketError, match="enrol ticket NAME"):
        Ticket.from_text("jetson-07")


def test_it_expires_at_its_time() -> None:
    assert not TICKET.expired(1_799_999_999)
    assert TICKET.expired(1_800_000_000)


@pytest.mark.parametrize("scheme", ["flwr-caesar:", "FLWR-CAESAR:", "flwr-caesar://"])
def test_what_a_scanner_returns_is_read(scheme: str) -> None:
    scanned = f"\ufeff {scheme}{TICKET.to_text()}\r\n"
    assert Ticket.from_text(scanned) == TICKET
    assert Ticket.from_text(TICKET.to_uri()) == TICKET


def test_a_qr_code_holds_the_uri_on_a_terminal_and_on_paper() -> None:
    pytest.importorskip("segno")
    zxing = pytest.importorskip("zxingcpp")
    text, columns = to_terminal(TICKET)
    assert {len(line) for line in text.splitlines()} == {columns}
    # A character is two modules, one above the other; where there is ink it is light.
    halves = [
        [character in inked for character in line]
        for line in text.splitlines()
        for inked in ("█▀", "█▄")
    ]
    picture = np.kron(np.array(halves, np.uint8), np.full((4, 4), 255, np.uint8))
    (found,) = zxing.read_barcodes(picture)
    assert found.text == TICKET.to_uri()
    svg = ElementTree.fromstring(to_svg(TICKET))
    assert float(svg.attrib["width"]) == 3 * columns
