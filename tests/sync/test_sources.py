"""Ids, tokens and the date are the machine's, or those that were passed in."""

from __future__ import annotations

import time

from flwr_caesar.sync.sources import Sources


def test_the_machine_gives_ids_tokens_and_the_date():
    before, sources, after = time.time_ns(), Sources(), time.time_ns()
    assert before <= sources.now() >= after
    ids = {sources.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(0 < each < 1 << 64 for each in ids)
    tokens = {sources.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {16}


def test_an_id_is_never_zero():
    assert Sources(token_bytes=bytes).new_id() == 1


def test_what_is_passed_in_is_used():
    sources = Sources(now=lambda: 7, token_bytes=lambda count: b"\1" * count)
    assert sources.now() == 7
    assert sources.new_token() == b"\1" * 16
    assert sources.new_id() == 0x0101010101010101
