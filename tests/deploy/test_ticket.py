from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.deploy.pki import make_authority
from flwr_caesar.deploy.ticket import Ticket, TicketError, new_token

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
