"""Threads decode replies; what comes of it is what one thread would make of them."""

from __future__ import annotations

import random
import time
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import CompressionMod
from flwr_caesar.codec import CodecError
from flwr_caesar.strategies import CorrelationAware, ErrorBounded, TopK, decoding
from flwr_caesar.strategies.decoding import DecodingQueue, UnderWay
from flwr_caesar.strategies.exchange import Opened
from flwr_caesar.strategies.framed import FrameExchange
from flwr_caesar.sync.sources import Sources

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid
from .replies import change_header, header_of

NODES = 7


def seeded(seed: int) -> Sources:
    return Sources(now=lambda: 1, token_bytes=random.Random(seed).randbytes)


def run(monkeypatch, make, threads, *, fails=(), tamper=None):
    """Train for three rounds with decoders that take their time."""
    pauses = random.Random(threads)
    plain = FrameExchange._decode

    def decode(self, phase, reply):
        time.sleep(pauses.random() * 3e-3)
        if reply.node_id in fails:
            time.sleep(20e-3)
            raise CodecError("made up")
        return plain(self, phase, reply)

    with monkeypatch.context() as patch:
        patch.setattr(FrameExchange, "_decode", decode)
        patch.setattr(decoding, "_LEAST_BYTES", 0)
        patch.setattr(decoding, "_cores", lambda: threads)
        grid = LocalGrid(
            numpy_app(mods=[CompressionMod(sources=seeded(1))]),
            NODES,
            tamper=tamper,
        )
        strategy = make(FedAvg(), sources=seeded(2))
        result = strategy.start(grid, initial_model(), num_rounds=3)
    arrays = {name: array.numpy() for name, array in result.arrays.items()}
    return arrays, [record.dropped for record in strategy.history]


def same(one, other):
    return one[1] == other[1] and all(
        np.array_equal(array, other[0][name]) for name, array in one[0].items()
    )


@pytest.mark.parametrize("make", [TopK, ErrorBounded, CorrelationAware])
def test_the_model_is_that_of_one_thread_to_the_bit(make, monkeypatch):
    assert same(run(monkeypatch, make, 4), run(monkeypatch, make, 1))


def test_a_reply_that_cannot_be_decoded_costs_itself(monkeypatch):
    many = run(monkeypatch, TopK, 4, fails={3})
    assert same(many, run(monkeypatch, TopK, 1, fails={3}))
    assert [list(dropped) for dropped in many[1]] == [[3], [], [3], [], [3], []]


def test_who_comes_second_counts_if_the_first_one_of_its_name_does_not(monkeypatch):
    """Whichever of two replies of one device comes first: its frame is damaged."""
    came: dict[int, bytes] = {}

    def tamper(reply: Message, node: int) -> Message:
        if node in (2, 5):
            token = came.setdefault(2, header_of(reply).token)
            change_header(reply, token=token)
        return reply

    for first in (2, 5):
        came.clear()
        many = run(monkeypatch, TopK, 4, fails={first}, tamper=tamper)
        came.clear()
        one = run(monkeypatch, TopK, 1, fails={first}, tamper=tamper)
        assert same(many, one)


class Pool:
    """Runs nothing until it is told to."""

    def __init__(self) -> None:
        self.futures: list[Future[tuple[object, float]]] = []

    def submit(self, *_: object) -> Future[tuple[object, float]]:
        self.futures.append(Future())
        return self.futures[-1]


def under_way(node_id: int) -> UnderWay:
    reply = SimpleNamespace(node_id=node_id)
    return UnderWay(Opened(reply, decode=lambda: None), "", 0, 0.0)


@pytest.mark.parametrize(("megabytes", "room"), [(10, 4), (40, 3), (64, 2)])
def test_no_more_are_decoded_at_once_than_memory_has_room_for(megabytes, room):
    pool = Pool()
    queue = DecodingQueue(pool, 4, megabytes << 20)
    for number in range(1, room):
        queue.put(under_way(number))
        assert not queue.is_due
    queue.put(under_way(room))
    assert queue.is_due
    assert len(pool.futures) == room
    assert queue.take().opened.reply.node_id == 1
    assert not queue.is_due
    pool.futures[2 - 1].set_result((None, 0.0))
    assert queue.is_due


@pytest.mark.parametrize("nbytes", [1 << 10, 500 << 20])
def test_small_and_large_models_take_no_threads(nbytes):
    pool = Pool()
    queue = DecodingQueue(pool, 4, nbytes)
    queue.put(under_way(1))
    assert queue.is_due
    assert not pool.futures
