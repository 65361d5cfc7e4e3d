"""What apps and their authors see of us beside a model that trains."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import FedAvg, Strategy

from . import frozen, mods
from .app import App, Wrap, fed_avg, partition_of, reply_to
from .grid import DOWN, UP
from .numpy_app import accuracy, examples_of, initial_arrays, plain_app, trained
from .run import plainly, run
from .strategies import OURS
from .verdict import ALLOWANCE

FRAMED = [name for name in OURS if name not in ("FedComLoc", "Uncompressed")]
ANY = [*FRAMED, "Uncompressed"]


def app_with(client_app: object = plain_app, strategy: object = fed_avg) -> App:
    return App("", client_app, initial_arrays, accuracy, strategy, rounds=4)


@pytest.mark.parametrize("name", FRAMED)
def test_frozen_tensors_cost_next_to_nothing(name: str) -> None:
    """On the way up, and down once a device has them."""
    app = frozen.APPS[0]
    ours, plain = run(app, name), plainly(app)
    is_frozen = {
        n for n, p in frozen.probing().named_parameters() if not p.requires_grad
    }
    cost = sum(app.initial_arrays(0)[n].numpy().nbytes for n in is_frozen)
    for way in (UP, DOWN):
        allowed = plain.grid.sizes["train", way][0] - 0.95 * cost + ALLOWANCE
        # The first messages bring the frozen tensors to the devices.
        assert max(ours.grid.sizes["train", way][app.nodes :]) <= allowed, way


@pytest.mark.parametrize("name", FRAMED)
def test_message_size_mod_shows_what_travels(name: str) -> None:
    shown: list[int] = []

    class Sizes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if str(record.msg).startswith("Outgoing message size"):
                shown.append(int(record.args[0]))

    logger, handler = logging.getLogger("flwr"), Sizes()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        outcome = run(mods.APPS[0], name)
    finally:
        logger.removeHandler(handler)
    assert outcome.dropped == []
    sent = outcome.grid.sizes["train", UP]
    # The mod counts values, the grid also what Flower wraps around each of them.
    around = [own - seen for own, seen in zip(sent, shown, strict=True)]
    assert all(0 < size < 1000 for size in around)


@pytest.mark.parametrize("name", ANY)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_only_a_reply_with_a_new_non_finite_element_is_dropped(
    name: str, value: float
) -> None:
    def client_app(own: list[Mod]) -> ClientApp:
        app = ClientApp(mods=own)

        @app.train()
        def train(msg: Message, context: Context) -> Message:
            arrays = trained(msg.content["arrays"], context)
            if partition_of(context)[0] == 2:
                arrays["weight"][3, 4] = value
            return reply_to(msg, arrays, examples=examples_of(context))

        return app

    outcome = run(app_with(client_app), name)
    assert len(outcome.dropped) >= 3  # a device that goes on so is left out
    assert all("'weight'" in reason for reason in outcome.dropped)
    assert outcome.scores[-1] > 0.8


@pytest.mark.parametrize("name", ANY)
def test_a_fault_in_a_strategy_is_its_own_exception(name: str) -> None:
    class Faulty(FedAvg):
        def aggregate_train(
            self, server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            for reply in replies:
                reply.content["metrics"]["no such metric"]
            return None, None

    def strategy(wrap: Wrap) -> Strategy:
        return wrap(Faulty(fraction_evaluate=0.0))

    with pytest.raises(KeyError, match="no such metric"):
        run(app_with(strategy=strategy), name)


@pytest.mark.parametrize("name", ANY)
def test_a_run_in_which_every_device_fails_ends_with_the_reason(name: str) -> None:
    def client_app(own: list[Mod]) -> ClientApp:
        app = ClientApp(mods=own)

        @app.train()
        def train(msg: Message, context: Context) -> Message:
            raise RuntimeError("out of memory")

        return app

    with pytest.raises(Exception, match="out of memory"):
        run(app_with(client_app), name)


@pytest.mark.parametrize("name", ANY)
def test_an_option_that_does_not_exist_is_a_type_error(name: str) -> None:
    with pytest.raises(TypeError, match="denstiy"):
        OURS[name](FedAvg(), denstiy=0.1)
