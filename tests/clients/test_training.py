from __future__ import annotations

import copy
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from flwr_caesar.clients.training import (  # noqa: E402
    evaluate,
    load_state_arrays,
    state_arrays,
    train,
)
from flwr_caesar.tasks import load_partition, load_test  # noqa: E402
from flwr_caesar.tasks.models import build_model  # noqa: E402


def toy(n: int = 23):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int64)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def normalised() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


def equal(a: nn.Module, b: nn.Module) -> bool:
    first, second = state_arrays(a), state_arrays(b)
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_a_full_batch_step_is_gradient_descent_with_weight_decay():
    x, y = toy()
    model = linear()
    w, b = model.weight.detach().double(), model.bias.detach().double()
    p = torch.softmax(torch.from_numpy(x).double() @ w.T + b, 1)
    error = p - nn.functional.one_hot(torch.from_numpy(y))
    expected = w - 0.1 * (error.T @ torch.from_numpy(x).double() / len(y) + 0.5 * w)
    train(model, x, y, steps=1, batch_size=100, lr=0.1, weight_decay=0.5)
    np.testing.assert_allclose(model.weight.detach(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.01)])
def test_its_steps_are_those_of_torchs_optimiser(momentum, weight_decay):
    """Also where a parameter is frozen, and one has no gradient in some steps."""

    class Fading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(linear() for _ in range(3))
            self.parts[1].requires_grad_(False)
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            first, frozen, second = self.parts
            return first(x) + frozen(x) + (second(x) if self.calls % 2 else 0)

    x, y = toy()
    options = {"lr": 0.1, "momentum": momentum, "weight_decay": weight_decay}
    ours, torchs = Fading(), Fading()
    for model, correct in ((ours, None), (torchs, lambda optimizer, _: optimizer)):
        train(model, x, y, epochs=3, batch_size=5, correct=correct, **options)
    assert equal(ours, torchs)
    assert not equal(ours, Fading())


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay"])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_a_setting_below_0_is_refused_as_torchs_optimiser_does(name, value):
    options = {"lr": 0.1, name: value}
    with pytest.raises(ValueError, match=f"{name} must be at least 0"):
        train(linear(), *toy(), epochs=1, batch_size=5, **options)


def test_training_needs_no_compiler(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # not to be imported
    train(linear(), *toy(), epochs=1, batch_size=5, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_is_deterministic_in_the_seed(momentum):
    x, y = toy()

    def run(seed: int) -> nn.Module:
        model = linear()
        options = {"epochs": 2, "batch_size": 5, "lr": 0.1, "momentum": momentum}
        train(model, x, y, seed=seed, **options)
        return model

    assert equal(run(1), run(1))
    assert not equal(run(1), run(2))


def test_epochs_are_steps_through_all_examples():
    x, y = toy(23)
    by_epochs, by_steps = linear(), linear()
    a = train(by_epochs, x, y, epochs=3, batch_size=5, lr=0.1)
    b = train(by_steps, x, y, steps=15, batch_size=5, lr=0.1)
    assert equal(by_epochs, by_steps)
    assert a == b
    assert a["examples"] == 23


def test_the_loss_is_the_mean_over_examples():
    x, y = toy()
    model = linear()
    loss, _ = evaluate(model, x, y)
    metrics = train(model, x, y, epochs=1, batch_size=5, lr=0.0)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)


def test_no_epochs_leave_the_model():
    model = linear()
    assert train(model, *toy(), epochs=0, batch_size=5, lr=0.1)["loss"] == 0
    assert equal(model, linear())


@pytest.mark.parametrize("n", [1, 6])
def test_a_batch_of_one_trains_beside_batch_normalisation(n):
    x, y = toy(n)
    model = normalised()
    before = copy.deepcopy(model)
    metrics = train(model, x, y, epochs=1, batch_size=5, lr=0.1)
    assert np.isfinite(metrics["loss"])
    assert not equal(model, before)
    assert int(model[1].num_batches_tracked) == n // 5


def test_the_arrays_may_be_read_only_and_stay_as_they_are():
    x, y = toy()
    x.setflags(write=False)
    y.setflags(write=False)
    model = linear()
    train(model, x, y, epochs=1, batch_size=5, lr=0.1)
    evaluate(model, x, y)
    assert np.array_equal(x, toy()[0])


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_evaluation_does_not_depend_on_the_batch_size(batch_size):
    x, y = toy()
    model = normalised()
    loss, accuracy = evaluate(model, x, y, batch_size=batch_size)
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(x))
    target = torch.from_numpy(y)
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, target)))
    assert accuracy == pytest.approx(
        float((logits.argmax(1) == target).double().mean())
    )


@pytest.mark.parametrize("limits", [{}, {"epochs": 1, "steps": 1}])
def test_epochs_or_steps_must_be_given(limits):
    with pytest.raises(ValueError, match="either epochs or steps"):
        train(linear(), *toy(), batch_size=5, lr=0.1, **limits)


def test_no_examples_are_an_error():
    x, y = toy(0)
    with pytest.raises(ValueError, match="no examples"):
        train(linear(), x, y, epochs=1, batch_size=5, lr=0.1)
    with pytest.raises(ValueError, match="no examples"):
        evaluate(linear(), x, y)


def test_state_arrays_are_copies_that_load_back():
    model, other = normalised(), normalised()
    train(model, *toy(), epochs=1, batch_size=5, lr=0.1)
    arrays = state_arrays(model)
    load_state_arrays(other, arrays)
    assert equal(model, other)
    arrays["0.weight"] += 1
    assert equal(model, other)


def test_averaged_integer_buffers_are_rounded():
    model = normalised()
    arrays = state_arrays(model)
    arrays["1.num_batches_tracked"] = np.array(2.6, np.float64)
    arrays["0.weight"] = arrays["0.weight"].astype(np.float64)
    load_state_arrays(model, arrays)
    assert int(model[1].num_batches_tracked) == 3
    assert model[1].num_batches_tracked.dtype == torch.int64
    assert model[0].weight.dtype == torch.float32


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_a_foreign_state_is_refused_whole(change):
    model = linear()
    arrays = {name: array + 1 for name, array in state_arrays(model).items()}
    if change == "missing":
        del arrays["bias"]
    elif change == "extra":
        arrays["more"] = np.zeros(1)
    else:
        arrays["bias"] = np.zeros((1, 2))
    with pytest.raises(ValueError, match=r"bias|more"):
        load_state_arrays(model, arrays)
    assert equal(model, linear())


def test_a_small_cnn_learns_mnist5k():
    data = {
        "name": "mnist5k",
        "batch_size": 32,
        "test_size": 1000,
        "partition": {"kind": "iid"},
    }
    examples, test = load_partition(data, 0, 1, seed=0), load_test(data)
    shape = {"input_shape": [1, 28, 28], "num_classes": 10}
    model = build_model({"name": "cnn", **shape}, seed=0)
    metrics = train(
        model, examples.x, examples.y, epochs=2, batch_size=32, lr=0.1, seed=0
    )
    loss, accuracy = evaluate(model, test.x, test.y)
    assert accuracy > 0.93
    assert loss < metrics["loss"]
