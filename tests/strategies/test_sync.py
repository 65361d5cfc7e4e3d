"""The law through Flower: what was applied and what is left is what was computed."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import (
    CodecState,
    Layout,
    get_codec,
    inspect_frame,
    update_layout,
)
from flwr_caesar.codec.contract.frame import stamp
from flwr_caesar.strategies import CompressedStrategy, TopK
from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.sync.errors import StateError
from flwr_caesar.sync.ledger import SqliteLedger
from flwr_caesar.sync.protocol import device_id
from flwr_caesar.sync.state import DeviceState
from flwr_caesar.transport import (
    arrays_nbytes,
    record_to_frame,
)

from .apps import drift, initial_model, numpy_app
from .local_grid import LocalGrid
from .replies import change_header, header_of, put_frame


class Work:
    """Random updates of one tensor, and the sum of what each device computed."""

    def __init__(self) -> None:
        self.computed = {node: np.zeros((64, 48)) for node in range(1, 9)}

    def __call__(self, arrays, node, server_round):
        rng = np.random.default_rng([node, server_round])
        out = {name: np.array(value) for name, value in arrays.items()}
        out["weight"] = arrays["weight"] + rng.normal(size=(64, 48)).astype(np.float32)
        self.computed[node] += out["weight"].astype(np.float64) - arrays["weight"]
        return out


def kept(grid: LocalGrid, node: int) -> tuple[np.ndarray, DeviceState]:
    """Return a device's residual of the tensor, and its state."""
    records = grid.contexts[node].state
    (lineage,) = {int(key.split(".")[1], 16) for key in records}
    state = ContextStore(records).load(lineage)
    assert state is not None
    return state.residual.get("weight", np.zeros((64, 48))), state


def sent_in(state: DeviceState) -> np.ndarray:
    """Return what the tensor got in the device's only upload in doubt."""
    (pending,) = state.pending
    known = CodecState(update_layout(Layout.of(state.model)))
    codec = get_codec(inspect_frame(pending.frame).config)
    return codec.decode(pending.frame, known)[0]["weight"]


def one_of_one(**options):
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    return TopK(inner, density=0.05, **options)


@pytest.mark.parametrize("lost", [(), (2, 3), (1, 4, 5, 9), (10,)])
def test_nothing_is_lost_when_replies_are(lost: tuple[int, ...]) -> None:
    work = Work()
    count = 0

    def lose(reply: Message, node: int) -> Message | None:
        nonlocal count
        count += 1
        return None if count in lost else reply

    strategy = one_of_one()
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 1, tamper=lose)
    result = strategy.start(grid, initial_model(), num_rounds=10, timeout=0.1)
    assert sum(bool(r.dropped) for r in strategy.history) == len(lost)
    applied = result.arrays["weight"].numpy() - initial_model()["weight"].numpy()
    residual, state = kept(grid, 1)
    if 10 in lost:
        residual = residual + sent_in(state)
    np.testing.assert_allclose(applied + residual, work.computed[1], atol=2e-4)


def test_a_model_that_the_device_holds_costs_a_reference() -> None:
    random.seed(0)
    strategy = TopK(FedAvg())
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 4)
    strategy.start(grid, initial_model(), num_rounds=2)
    train_1, evaluate_1, train_2, evaluate_2 = (
        [content for kind, content in grid.sent[i : i + 4]] for i in range(0, 16, 4)
    )
    for phase in (train_1, evaluate_1):
        assert all(arrays_nbytes(content) > 10_000 for content in phase)
    for content in train_2:  # the model that was evaluated is the one to train
        assert arrays_nbytes(content) == 0
    # Real bytes: the message's metadata and config and all that we add.
    sizes = grid.sent_bytes
    assert max(sizes[8:12]) < 1000
    assert min(sizes[:8] + sizes[12:]) > 10_000
    assert all(arrays_nbytes(content) > 10_000 for content in evaluate_2)
    assert not any(record.dropped for record in strategy.history)


def test_a_device_that_lost_its_state_gets_a_whole_model_the_next_time() -> None:
    strategy = TopK(FedAvg())
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 3)

    def forget(reply: Message, node: int) -> Message:
        # After the first evaluation: node 2 is believed to hold the model.
        if reply.metadata.message_type == "evaluate" and len(grid.sent) == 6:
            for key in list(grid.contexts[2].state):
                del grid.contexts[2].state[key]
        return reply

    grid.tamper = forget
    strategy.start(grid, initial_model(), num_rounds=3)
    by_phase = [set(record.dropped) for record in strategy.history]
    assert by_phase[0] == by_phase[1] == set()
    assert by_phase[2] == {2}
    assert "whole model" in strategy.history[2].dropped[2]
    assert by_phase[3:] == [set(), set(), set()]


@pytest.mark.parametrize("inner", [FedAvg, FedAdam, FedAvgM])
def test_a_resumed_run_is_the_uninterrupted_one(inner: type, tmp_path: Path) -> None:
    def run(folder: Path, *stops: int):
        grid = LocalGrid(numpy_app(mods=[compression_mod]), 4)
        for stop in stops:
            strategy = TopK(inner(), density=0.1, checkpoint=folder)
            result = strategy.start(grid, initial_model(), num_rounds=stop)
        return result, strategy

    whole, _ = run(tmp_path / "whole", 6)
    resumed, strategy = run(tmp_path / "parts", 2, 4, 6)
    assert [r.server_round for r in strategy.history] == [5, 5, 6, 6]
    for name in whole.arrays:
        np.testing.assert_array_equal(
            whole.arrays[name].numpy(), resumed.arrays[name].numpy(), err_msg=name
        )
    assert list(resumed.train_metrics_clientapp) == [5, 6]


@pytest.mark.parametrize("killed", ["aggregated", "in the commit", "committed"])
@pytest.mark.parametrize("inner", [FedAvg, FedAdam])
def test_a_killed_run_goes_on_to_the_same_model_given_the_same_replies(
    inner: type, killed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: Path, grid: LocalGrid):
        strategy = TopK(inner(), density=0.1, checkpoint=folder)
        return strategy.start(grid, initial_model(), num_rounds=5).arrays

    class Killed(BaseException):
        pass

    whole = run(tmp_path / "a", LocalGrid(numpy_app(mods=[compression_mod]), 4))
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 4)
    before: dict[int, RecordDict] = {}
    commit, transaction = SqliteLedger.commit, SqliteLedger._transaction

    def watched(self, head, rows=(), nodes=None, checkpoint=None):
        at_the_kill = checkpoint is not None and checkpoint.round == 3
        if at_the_kill and killed == "aggregated":
            raise Killed
        if at_the_kill and killed == "in the commit":
            broken.setattr(SqliteLedger, "_transaction", torn)
        commit(self, head, rows, nodes, checkpoint)
        for node, context in grid.contexts.items():
            before[node] = RecordDict(dict(context.state.items()))
        if at_the_kill:
            raise Killed

    @contextmanager
    def torn(self):
        with transaction(self) as database:
            yield database
            raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(SqliteLedger, "commit", watched)
        with pytest.raises(Killed):
            run(tmp_path / "b", grid)
    # Their states at the last commit, so that they answer as they did the first time.
    for node, context in grid.contexts.items():
        context.state = before[node]
    resumed = run(tmp_path / "b", grid)
    for name in whole:
        np.testing.assert_array_equal(
            whole[name].numpy(), resumed[name].numpy(), err_msg=name
        )


@pytest.mark.parametrize("crash_in", [1, 3])
def test_a_crash_before_the_commit_applies_nothing_and_loses_nothing(
    crash_in: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work()
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 1)
    with monkeypatch.context() as broken:
        commit = SqliteLedger.commit
        rounds = 0

        def crash(self, head, rows=(), nodes=None, checkpoint=None):
            nonlocal rounds
            rounds += checkpoint is not None
            if rounds == crash_in:
                raise KeyboardInterrupt
            commit(self, head, rows, nodes, checkpoint)

        broken.setattr(SqliteLedger, "commit", crash)
        with pytest.raises(KeyboardInterrupt):
            one_of_one(checkpoint=tmp_path).start(grid, initial_model(), num_rounds=5)
    result = one_of_one(checkpoint=tmp_path).start(grid, initial_model(), num_rounds=5)
    applied = result.arrays["weight"].numpy() - initial_model()["weight"].numpy()
    residual, _ = kept(grid, 1)
    np.testing.assert_allclose(applied + residual, work.computed[1], atol=2e-4)


def test_what_comes_after_the_deadline_is_neither_applied_nor_lost() -> None:
    work = Work()
    late: dict[str, Message] = {}

    def hold(reply: Message, node: int) -> Message | None:
        grid._replies.update(late)  # in the next round, and nobody waits for it
        late.clear()
        if len(grid.sent) not in (2, 3, 5):
            return reply
        message_id = str(len(grid.sent) - 1)
        reply.metadata.__dict__["_reply_to_message_id"] = message_id
        late[message_id] = reply
        return None

    strategy = one_of_one(deadline=0.1)
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 1, tamper=hold)
    result = strategy.start(grid, initial_model(), num_rounds=8)
    dropped = [record.dropped for record in strategy.history]
    closed = {1: "no reply before the round closed"}
    assert dropped == [{}, closed, closed, {}, closed, {}, {}, {}]
    applied = result.arrays["weight"].numpy() - initial_model()["weight"].numpy()
    residual, _ = kept(grid, 1)
    np.testing.assert_allclose(applied + residual, work.computed[1], atol=2e-4)


def _forge(**changes: object) -> Callable[[Message, Message], None]:
    """Change what a device says of its upload, with a checksum that fits."""
    return lambda reply, first: change_header(reply, **changes)


def _send_again(reply: Message, first: Message) -> None:
    """Send the first upload once more, as if it answered this request."""
    change_header(reply, upload_id=header_of(first).upload_id, known=())
    now = inspect_frame(record_to_frame(reply.content["arrays"]))
    frame = record_to_frame(first.content["arrays"])
    frame = stamp(frame, lineage=now.lineage, base_version=now.base_version)
    put_frame(reply, frame)


def _of_another(**changes: int) -> Callable[[Message, Message], None]:
    """Say of another history or version what is of this one."""

    def tamper(reply: Message, first: Message) -> None:
        frame = record_to_frame(reply.content["arrays"])
        info = inspect_frame(frame)
        of = {"lineage": info.lineage, "base_version": info.base_version}
        put_frame(reply, stamp(frame, **(of | changes)))

    return tamper


@pytest.mark.parametrize(
    ("tamper", "reason", "counted"),
    [
        (_forge(nonce=1), "answers another request", False),
        (_of_another(lineage=7), "another history or version", True),
        (_of_another(base_version=99), "another history or version", True),
        (_forge(known=()), "another copy of the device", True),
        (_send_again, "applied before", True),
    ],
)
def test_what_a_hostile_device_claims_is_refused_and_counted(
    tamper: Callable[[Message, Message], None],
    reason: str,
    counted: bool,
    tmp_path: Path,
) -> None:
    first: dict[int, Message] = {}

    def lie(reply: Message, node: int) -> Message:
        if node == 2:
            if node in first:
                tamper(reply, first[node])
            else:
                first[node] = Message(
                    RecordDict(dict(reply.content.items())), reply_to=reply
                )
        return reply

    inner = FedAvg(fraction_evaluate=0.0)
    strategy = TopK(inner, density=0.1, checkpoint=tmp_path)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 3, tamper=lie)
    result = strategy.start(grid, initial_model(), num_rounds=4)
    assert list(result.train_metrics_clientapp) == [1, 2, 3, 4]
    for record in strategy.history[1:]:
        assert record.dropped.keys() == {2}
        assert reason in record.dropped[2]
    token = header_of(first[2]).token
    with SqliteLedger(tmp_path) as ledger:
        row = ledger.devices([device_id(token)])[device_id(token)]
    assert row.uploads == 1
    assert row.refused == (3 if counted else 0)


def test_two_servers_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 3)
    with SqliteLedger(tmp_path), pytest.raises(StateError, match="stop that server"):
        TopK(FedAvg(), checkpoint=tmp_path).start(grid, initial_model())


def test_a_replayed_upload_is_refused() -> None:
    first: dict[int, Message] = {}

    def replay(reply: Message, node: int) -> Message:
        if node == 2 and reply.metadata.message_type == "train":
            content = first.setdefault(node, reply.content)
            reply.content = content
        return reply

    strategy = CompressedStrategy(FedAvg(fraction_evaluate=0.0))
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=drift), 3, tamper=replay)
    strategy.start(grid, initial_model(), num_rounds=2)
    assert not strategy.history[0].dropped
    assert strategy.history[1].dropped == {2: "answers another request"}


@pytest.mark.parametrize("cap", [0, 2])
def test_an_old_residual_is_given_up_only_where_asked_for(cap: int) -> None:
    work = Work()
    asked = {1: [1, 2], 2: [1], 3: [1], 4: [1], 5: [1, 2]}

    class Chosen(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            messages = super().configure_train(server_round, arrays, config, grid)
            chosen = asked[server_round]
            return [m for m in messages if m.metadata.dst_node_id in chosen]

    inner = Chosen(fraction_evaluate=0.0)
    strategy = TopK(inner, density=0.05, max_residual_age=cap)
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 2)
    strategy.start(grid, initial_model(), num_rounds=5)
    often, _ = kept(grid, 1)
    seldom, state = kept(grid, 2)
    sent = sent_in(state)
    last = np.random.default_rng([2, 5]).normal(size=(64, 48))
    only_last = np.allclose(seldom + sent, last, atol=1e-3)
    assert only_last == (cap == 2)
    assert np.abs(often).sum() > np.abs(last).sum()
