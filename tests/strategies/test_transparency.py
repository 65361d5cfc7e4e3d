"""What an app or an inner strategy can do under plain Flower works when wrapped."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import arrays_size_mod, message_size_mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedAvgM,
    FedXgbBagging,
    FedXgbCyclic,
    Result,
)

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import (
    Caesar,
    CompressedStrategy,
    CorrelationAware,
    ErrorBounded,
    FedComLoc,
    MagnitudePruning,
    TopK,
    TrainingFailedError,
    Uncompressed,
)

from .local_grid import LocalGrid

FACTORIES: dict[str, Callable[..., CompressedStrategy]] = {
    "caesar": Caesar,
    "paper": lambda inner, **kw: Caesar(inner, codec="paper", **kw),
    "topk": TopK,
    "error_bounded": ErrorBounded,
    "correlation": CorrelationAware,
    "pruning": MagnitudePruning,
    "plain": Uncompressed,
}
LOSSLESS = {
    "dense": CompressedStrategy,
    "plain": Uncompressed,
}
every = pytest.mark.parametrize("wrap", FACTORIES.values(), ids=FACTORIES)
lossless = pytest.mark.parametrize("wrap", LOSSLESS.values(), ids=LOSSLESS)


def model() -> ArrayRecord:
    rng = np.random.default_rng(0)
    return ArrayRecord(
        {
            "weight": Array(rng.normal(size=(50, 40)).astype(np.float32)),
            "bias": Array(rng.normal(size=40).astype(np.float32)),
        }
    )


def halved(record: ArrayRecord) -> ArrayRecord:
    return ArrayRecord(
        {k: Array(np.asarray(v.numpy() * 0.5)) for k, v in record.items()}
    )


def reply(msg: Message, arrays: ArrayRecord, **records: Any) -> Message:
    metrics = MetricRecord({"num-examples": 10})
    content = RecordDict({"arrays": arrays, "metrics": metrics, **records})
    return Message(content, reply_to=msg)


def app(
    train: Callable[[Message, Context], Message] | None = None,
    evaluate: Callable[[Message, Context], Message] | None = None,
    mods: Iterable[Any] = (compression_mod,),
) -> ClientApp:
    client = ClientApp(mods=list(mods))
    client.train()(train or (lambda m, c: reply(m, halved(m.content["arrays"]))))

    def tested(msg: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 1, "loss": 1.0})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    client.evaluate()(evaluate or tested)
    return client


def run(
    strategy: Any,
    client: ClientApp,
    rounds: int = 2,
    initial: Any = None,
    **kwargs: Any,
) -> Result:
    random.seed(0)
    result: Result = strategy.start(
        LocalGrid(client, 3), initial or model(), num_rounds=rounds, **kwargs
    )
    return result


def dropped(strategy: CompressedStrategy) -> list[str]:
    return [why for record in strategy.history for why in record.dropped.values()]


# --- evaluation, metrics, contents -------------------------------------------------


@every
def test_an_evaluation_may_return_arrays(wrap) -> None:
    def evaluate(msg: Message, context: Context) -> Message:
        return reply(msg, msg.content["arrays"])

    strategy = wrap(FedAvg())
    result = run(strategy, app(evaluate=evaluate))
    assert not dropped(strategy)
    assert len(result.evaluate_metrics_clientapp) == 2


@lossless
def test_a_metrics_function_sees_what_it_sees_under_flower(wrap) -> None:
    seen: list[list[RecordDict]] = []

    def aggregate(contents: list[RecordDict], key: str) -> MetricRecord:
        seen.append(contents)
        slowest = max(content["info"]["seconds"] for content in contents)
        return MetricRecord({"slowest": slowest})

    def train(msg: Message, context: Context) -> Message:
        info = ConfigRecord({"seconds": float(context.node_id), "blob": b"xx"})
        return reply(msg, halved(msg.content["arrays"]), info=info)

    strategy = wrap(FedAvg(fraction_evaluate=0.0, train_metrics_aggr_fn=aggregate))
    result = run(strategy, app(train), rounds=1)
    assert result.train_metrics_clientapp[1] == MetricRecord({"slowest": 3.0})
    (contents,) = seen
    assert len(contents) == 3
    for content in contents:
        assert set(content) == {"arrays", "metrics", "info"}
        np.testing.assert_allclose(
            content["arrays"]["weight"].numpy(),
            model()["weight"].numpy() * 0.5,
            rtol=1e-5,
        )
    assert strategy.train_metrics_aggr_fn is aggregate


@lossless
def test_zero_examples_weigh_nothing_and_are_no_fault(wrap) -> None:
    def train(msg: Message, context: Context) -> Message:
        arrays = msg.content["arrays"]
        trained = arrays if context.node_id == 1 else halved(arrays)
        answer = reply(msg, trained)
        answer.content["metrics"]["num-examples"] = 0 if context.node_id == 1 else 10
        return answer

    def evaluate(msg: Message, context: Context) -> Message:
        count = 0 if context.node_id == 1 else 5
        metrics = MetricRecord({"num-examples": count, "loss": float(context.node_id)})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    strategy = wrap(FedAvg())
    result = run(strategy, app(train, evaluate), rounds=1)
    assert not dropped(strategy)
    np.testing.assert_allclose(
        result.arrays["weight"].numpy(), model()["weight"].numpy() * 0.5, rtol=1e-6
    )
    assert result.evaluate_metrics_clientapp[1]["loss"] == 2.5


class OwnMean(FedAvg):
    """Aggregates by itself, and asks for no MetricRecord."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        contents = [r.content for r in replies if r.has_content()]
        names = list(contents[0]["arrays"])
        means = {
            n: Array(np.mean([c["arrays"][n].numpy() for c in contents], axis=0))
            for n in names
        }
        return ArrayRecord(means), None


@lossless
def test_a_strategy_that_asks_for_no_metrics_gets_replies_without(wrap) -> None:
    def train(msg: Message, context: Context) -> Message:
        content = RecordDict({"arrays": halved(msg.content["arrays"])})
        return Message(content, reply_to=msg)

    strategy = wrap(OwnMean(fraction_evaluate=0.0))
    result = run(strategy, app(train), rounds=1)
    assert not dropped(strategy)
    np.testing.assert_allclose(
        result.arrays["weight"].numpy(), model()["weight"].numpy() * 0.5, rtol=1e-6
    )


# --- the inner strategy's own ----------------------------------------------------


class Custom(FedAvg):
    started = 0
    path = ""

    def set_path(self, path: str) -> None:
        self.path = path

    def start(self, grid: Any, initial_arrays: Any, *args: Any, **kwargs: Any) -> Any:
        result = super().start(grid, initial_arrays, *args, **kwargs)
        self.started += 1
        return result


@every
def test_methods_attributes_and_start_of_the_inner_strategy_are_its_own(wrap) -> None:
    inner = Custom(fraction_evaluate=0.0)
    strategy = wrap(inner)
    strategy.set_path("/somewhere")
    strategy.fraction_train = 0.5
    assert inner.path == "/somewhere" == strategy.path
    assert inner.fraction_train == 0.5
    run(strategy, app())
    assert inner.started == 1
    assert len(strategy.history) == 2
    assert not dropped(strategy)
    with pytest.raises(AttributeError):
        _ = strategy.no_such_thing


@lossless
def test_a_loop_of_its_own_may_stop_early(wrap) -> None:
    class Loop(FedAvg):
        def start(self, grid: Any, initial_arrays: Any, num_rounds: int = 3) -> Any:
            result = Result()
            arrays = initial_arrays
            for number in range(1, num_rounds + 1):
                sent = self.configure_train(number, arrays, ConfigRecord(), grid)
                replies = grid.send_and_receive(sent, timeout=60)
                arrays, _ = self.aggregate_train(number, replies)
                result.arrays = arrays
                if number == 2:
                    break
            return result

    strategy = wrap(Loop(fraction_evaluate=0.0))
    random.seed(0)
    result = strategy.start(LocalGrid(app(), 3), model(), num_rounds=9)
    assert len(strategy.history) == 2
    np.testing.assert_allclose(
        result.arrays["weight"].numpy(), model()["weight"].numpy() * 0.25, rtol=1e-5
    )


def test_what_a_newer_flower_hands_to_start_is_handed_on() -> None:
    class Newer(FedAvg):
        heard: Any = None

        def start(self, *args: Any, should_stop: Any = None, **kwargs: Any) -> Any:
            self.heard = should_stop
            return super().start(*args, **kwargs)

    inner = Newer(fraction_evaluate=0.0)
    stop = object()
    run(TopK(inner), app(), should_stop=stop)
    assert inner.heard is stop


# --- several records, several models ---------------------------------------------


class Two(OwnMean):
    """Sends the model twice, and gets it back twice."""

    def configure_train(self, *args: Any) -> Any:
        messages = list(super().configure_train(*args))
        for message in messages:
            message.content["control"] = self.sent = args[1]
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        self.controls = []
        listed = list(replies)
        for each in listed:
            self.controls.append(each.content["control"]["weight"].numpy())
        return super().aggregate_train(server_round, listed)


@every
def test_other_records_travel_exactly(wrap) -> None:
    def train(msg: Message, context: Context) -> Message:
        assert set(msg.content) == {"arrays", "control", "config"}
        control = halved(msg.content["control"])
        return reply(msg, halved(msg.content["arrays"]), control=control)

    inner = Two(fraction_evaluate=0.0)
    strategy = wrap(inner)
    run(strategy, app(train), rounds=1)
    assert not dropped(strategy)
    assert len(inner.controls) == 3
    for control in inner.controls:
        np.testing.assert_array_equal(control, inner.sent["weight"].numpy() * 0.5)


class PerNode(FedAvg):
    different = False

    def configure_train(self, server_round: int, arrays: Any, *rest: Any) -> Any:
        messages = list(super().configure_train(server_round, arrays, *rest))
        for message in messages:
            shift = message.metadata.dst_node_id if self.different else 0
            copy = {k: Array(np.asarray(v.numpy() + shift)) for k, v in arrays.items()}
            config = ConfigRecord({"node": message.metadata.dst_node_id})
            message.content = RecordDict(
                {"arrays": ArrayRecord(copy), "config": config}
            )
        return messages


@every
def test_equal_models_built_anew_count_as_one(wrap) -> None:
    strategy = wrap(PerNode(fraction_evaluate=0.0))
    run(strategy, app())
    assert not dropped(strategy)
    assert len(strategy.history) == 2


@every
def test_different_models_end_the_run_at_the_first_message(wrap) -> None:
    inner = PerNode(fraction_evaluate=0.0)
    inner.different = True
    with pytest.raises(ValueError, match="different models to different devices"):
        run(wrap(inner), app())


# --- refused, and when -------------------------------------------------------------


@every
@pytest.mark.parametrize("inner", [FedXgbBagging, FedXgbCyclic])
def test_trees_are_refused(wrap, inner) -> None:
    with pytest.raises(TypeError, match="aggregates trees"):
        wrap(inner())


@every
def test_a_legacy_strategy_is_refused(wrap) -> None:
    from flwr.server.strategy import FedAvg as Legacy

    with pytest.raises(TypeError, match=r"legacy API \(flwr\.server\.strategy\)"):
        wrap(Legacy())


@every
@pytest.mark.parametrize(
    "outer",
    [
        DifferentialPrivacyServerSideFixedClipping,
        DifferentialPrivacyClientSideFixedClipping,
    ],
)
def test_privacy_outside_is_refused_with_the_right_order(wrap, outer) -> None:
    strategy = outer(
        wrap(FedAvg(fraction_evaluate=0.0)),
        noise_multiplier=0.1,
        clipping_norm=1.0,
        num_sampled_clients=3,
    )
    with pytest.raises(ValueError, match="must be the outermost strategy"):
        run(strategy, app())


def test_an_option_that_does_not_exist_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="'denstiy'; did you mean 'density'"):
        TopK(FedAvg(), denstiy=0.1)
    for wrap in [*FACTORIES.values(), lambda s, **kw: FedComLoc(s, lr=0.1, **kw)]:
        with pytest.raises(TypeError, match="unexpected keyword argument 'dedline'"):
            wrap(FedAvg(), dedline=1)


def test_an_option_without_effect_is_refused() -> None:
    for name, value in {"rate": 1.0, "first_bits": 2, "shared_start": True}.items():
        with pytest.raises(ValueError, match=f"{name} has no effect"):
            Caesar(FedAvg(), codec="paper", **{name: value})
    for name, value in {"theta_max": 0.5, "clusters": 2}.items():
        with pytest.raises(ValueError, match=f"{name} has no effect"):
            Caesar(FedAvg(), **{name: value})
    with pytest.raises(ValueError, match="max_residual_age has no effect"):
        Uncompressed(FedAvg(), max_residual_age=3)


@pytest.mark.parametrize(
    "mods", [(), (message_size_mod,), (arrays_size_mod, message_size_mod)], ids=len
)
def test_an_app_without_the_mod_ends_the_run_in_its_first_round(mods) -> None:
    for wrap in (TopK, Caesar, ErrorBounded):
        with pytest.raises(TrainingFailedError, match="put it first in its app"):
            run(wrap(FedAvg()), app(mods=mods), rounds=5)


def test_a_mod_before_ours_sees_what_travels() -> None:
    strategy = TopK(FedAvg(), density=0.01)
    run(strategy, app(mods=[message_size_mod, arrays_size_mod, compression_mod]))
    assert not dropped(strategy)


@pytest.mark.parametrize(("rounds", "most"), [(3, 3), (2, 2)])
def test_rounds_in_which_nothing_can_be_used_end_the_run(rounds, most) -> None:
    def train(msg: Message, context: Context) -> Message:
        if msg.content["config"]["server-round"] > 1:
            raise RuntimeError("CUDA out of memory")
        return reply(msg, halved(msg.content["arrays"]))

    strategy = TopK(FedAvg(fraction_evaluate=0.0), max_failed_rounds=most)
    pattern = f"none of 3 replies .* in {most} rounds.*CUDA out of memory"
    with pytest.raises(TrainingFailedError, match=pattern):
        run(strategy, app(train), rounds=9)
    assert len(strategy.history) == 1 + most
    lenient = TopK(FedAvg(fraction_evaluate=0.0), max_failed_rounds=0)
    run(lenient, app(train), rounds=5)
    assert len(lenient.history) == 5


def test_missing_replies_do_not_end_a_run() -> None:
    grid = LocalGrid(app(), 3, tamper=lambda reply, node: None)
    strategy = TopK(FedAvg(fraction_evaluate=0.0))
    strategy.start(grid, model(), num_rounds=4, timeout=0.05)
    assert len(strategy.history) == 4


def test_a_fault_of_the_strategy_is_an_exception(monkeypatch) -> None:
    from flwr_caesar.strategies.method import ServerMethod

    def faulty(*_: Any) -> None:
        raise NameError("name is not defined")

    monkeypatch.setattr(ServerMethod, "check", faulty)
    with pytest.raises(NameError):
        run(TopK(FedAvg()), app())


def test_other_tensors_are_named() -> None:
    def train(msg: Message, context: Context) -> Message:
        arrays = {k: v for k, v in msg.content["arrays"].items() if k != "bias"}
        return reply(msg, ArrayRecord(arrays))

    with pytest.raises(TrainingFailedError, match="'bias' is missing"):
        run(TopK(FedAvg()), app(train))


# --- dtypes ------------------------------------------------------------------------


def test_float64_replies_cost_what_float32_ones_do() -> None:
    def cost(dtype: type) -> int:
        def train(msg: Message, context: Context) -> Message:
            arrays = {
                k: Array(np.asarray(v.numpy(), np.float64).astype(dtype) * dtype(0.5))
                for k, v in msg.content["arrays"].items()
            }
            return reply(msg, ArrayRecord(arrays))

        strategy = ErrorBounded(FedAvg(fraction_evaluate=0.0))
        run(strategy, app(train), rounds=3)
        assert not dropped(strategy)
        return sum(record.bytes_up for record in strategy.history)

    assert cost(np.float64) == pytest.approx(cost(np.float32), rel=0.01)


@pytest.mark.parametrize("inner", [FedAvg, FedAvgM, OwnMean])
def test_bfloat16_models_train(inner) -> None:
    bf16 = ml_dtypes.bfloat16
    initial = ArrayRecord({"w": Array(np.ones((60, 60), np.float32).astype(bf16))})

    def train(msg: Message, context: Context) -> Message:
        array = msg.content["arrays"]["w"]
        assert array.dtype == "bfloat16"
        values = array.numpy().view(bf16).astype(np.float32) * 0.5
        return reply(msg, ArrayRecord({"w": Array(values.astype(bf16))}))

    strategy = CompressedStrategy(inner(fraction_evaluate=0.0))
    result = run(strategy, app(train), rounds=2, initial=initial)
    assert not dropped(strategy)
    np.testing.assert_array_equal(result.arrays["w"].numpy(), 0.25)
    assert result.arrays["w"].dtype == "float32"
