"""An optimiser with control variates steps as Scaffnew says, and finds the optimum."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from flwr_caesar.clients.compressors import compressor  # noqa: E402
from flwr_caesar.clients.control import next_control  # noqa: E402
from flwr_caesar.clients.scaffnew import scaffnew  # noqa: E402
from flwr_caesar.clients.training import state_arrays  # noqa: E402


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))


torch.manual_seed(1)
INPUTS, TARGET = torch.randn(12, 4), torch.randint(2, (12,))


def sgd(model: nn.Module, lr: float = 0.1, **options) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


def loop(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 4) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(INPUTS), TARGET).backward()
        optimizer.step()


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("zero", ["absent", "zeros"])
@pytest.mark.parametrize("compress", [None, torch.clone])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_without_control_variates_it_is_plain_sgd(zero, compress, weight_decay):
    plain, ours = network(), network()
    control = {} if zero == "absent" else state_arrays(ours)
    control = {name: 0 * h for name, h in control.items()}
    loop(plain, sgd(plain, weight_decay=weight_decay))
    optimizer = sgd(ours, weight_decay=weight_decay)
    loop(ours, scaffnew(optimizer, ours, control, compress=compress))
    assert same(plain, ours)


@pytest.mark.parametrize("kind", ["arrays", "tensors"])
def test_a_step_subtracts_the_control_variate_from_the_gradient(kind):
    model = network()
    h = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    control = {n: t.numpy() for n, t in h.items()} if kind == "arrays" else h
    optimizer = scaffnew(sgd(model), model, control)
    loop(model, optimizer, steps=1)
    for name, p in model.named_parameters():
        expected = before[name] - 0.1 * (p.grad - h[name])
        torch.testing.assert_close(p.detach(), expected)


def test_the_gradients_are_left_as_the_loss_made_them():
    model, other = network(), network()
    control = {"0.weight": np.ones((5, 4), np.float32)}
    loop(model, scaffnew(sgd(model), model, control), steps=1)
    loop(other, sgd(other), steps=1)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_a_parameter_that_the_loss_does_not_use_moves_by_its_control_variate():
    model = network()
    model.spare = nn.Parameter(torch.zeros(3))
    model.forward = nn.Sequential(*list(model)).forward
    h = np.array([1, 2, 3], np.float32)
    optimizer = scaffnew(sgd(model), model, {"spare": h})
    loop(model, optimizer, steps=2)
    assert torch.equal(model.spare.detach(), torch.from_numpy(h) * 0.1 * 2)


def test_the_caller_may_change_the_control_variates_afterwards():
    control = {"0.bias": np.zeros(5, np.float32)}
    model, other = network(), network()
    optimizer = scaffnew(sgd(model), model, control)
    control["0.bias"] += 1
    loop(model, optimizer)
    loop(other, sgd(other))
    assert same(model, other)


def test_the_gradient_is_taken_at_the_compressed_model_and_the_step_from_it():
    model = network()
    compress = compressor({"id": "topk", "density": 0.3, "exact_below": 0})
    at = copy.deepcopy(model)
    with torch.no_grad():
        for p in at.parameters():
            p.copy_(compress(p))
    nn.functional.cross_entropy(at(INPUTS), TARGET).backward()
    before = [p.detach().clone() for p in model.parameters()]
    loop(model, scaffnew(sgd(model), model, {}, compress=compress), steps=1)
    for p, q, x in zip(model.parameters(), at.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), x - 0.1 * q.grad)


def test_the_model_is_its_own_again_when_the_optimiser_is_gone():
    model = network().eval()
    own = model(INPUTS)
    optimizer = scaffnew(sgd(model), model, {}, compress=torch.zeros_like)
    assert not torch.equal(model(INPUTS), own)
    del optimizer
    gc.collect()
    assert torch.equal(model(INPUTS), own)


class Quadratic(nn.Module):
    """One device's objective, ``(x - b)' A (x - b) / 2``, its own optimum at `b`."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        super().__init__()
        q, _ = np.linalg.qr(rng.normal(size=(size, size)))
        self.a = torch.from_numpy(q @ np.diag(rng.uniform(0.1, 1, size)) @ q.T)
        self.b = torch.from_numpy(rng.normal(0, 3, size))
        self.x = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self):
        r = self.x - self.b
        return r @ self.a @ r / 2


def distances(
    *, corrected: bool, p: float = 0.25, rounds: int, seed: int = 0
) -> list[float]:
    """Return the distance to the optimum of all devices' mean objective, each round."""
    rng = np.random.default_rng(seed)
    devices = [Quadratic(rng, 6) for _ in range(5)]
    a = torch.stack([d.a for d in devices]).sum(0)
    optimum = torch.linalg.solve(a, sum(d.a @ d.b for d in devices)).numpy()
    controls: list[dict[str, np.ndarray]] = [{} for _ in devices]
    mean = {"x": np.zeros(6)}
    found = []
    for _ in range(rounds):
        steps = rng.geometric(p)
        sent = []
        for device, control in zip(devices, controls, strict=True):
            device.x.data = torch.from_numpy(mean["x"].copy())
            optimizer = sgd(device, lr=1.0)
            if corrected:
                optimizer = scaffnew(optimizer, device, control)
            for _ in range(steps):
                optimizer.zero_grad()
                device().backward()
                optimizer.step()
            sent.append({"x": device.x.detach().numpy().copy()})
        mean = {"x": np.mean([model["x"] for model in sent], axis=0)}
        controls = [
            next_control(control, mean, model, lr=1.0, p=p)
            for control, model in zip(controls, sent, strict=True)
        ]
        found.append(float(np.linalg.norm(mean["x"] - optimum)))
    return found


def test_scaffnew_converges_linearly_where_local_steps_alone_stall():
    ours = distances(corrected=True, rounds=120)
    assert ours[59] < 1e-4 * ours[0]
    assert ours[119] < 1e-4 * ours[59]
    fedavg = distances(corrected=False, rounds=120)
    assert np.mean(fedavg[60:]) > 0.1


def test_with_a_communication_at_every_step_it_is_gradient_descent():
    ours = distances(corrected=True, p=1.0, rounds=30)
    plain = distances(corrected=False, p=1.0, rounds=30)
    np.testing.assert_allclose(ours, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: sgd(m, momentum=0.9), "momentum=0.9: set it to 0.0"),
        (lambda m: sgd(m, maximize=True), "maximize=True: set it to False"),
        (lambda m: torch.optim.Adam(m.parameters()), "not Adam"),
        (
            lambda m: torch.optim.SGD(
                [
                    {"params": [m[0].weight], "lr": 0.1},
                    {"params": [m[0].bias], "lr": 0.2},
                ]
            ),
            "one lr",
        ),
    ],
    ids=["momentum", "maximize", "adam", "two-rates"],
)
def test_another_optimiser_is_refused(make, words):
    model = network()
    with pytest.raises(ValueError, match=words):
        scaffnew(make(model), model, {})


def test_a_rate_or_momentum_that_changes_is_refused():
    model = network()
    for option, value in (("lr", 0.2), ("momentum", 0.5)):
        optimizer = scaffnew(sgd(model), model, {})
        optimizer.param_groups[0][option] = value
        with pytest.raises(ValueError, match=option):
            loop(model, optimizer)


@pytest.mark.parametrize("control", [{"no": np.zeros(2)}, {"0.bias": np.zeros(4)}])
def test_control_variates_of_another_model_are_refused(control):
    model = network()
    with pytest.raises(ValueError, match=next(iter(control))):
        scaffnew(sgd(model), model, control)


def test_a_closure_and_a_loss_past_the_model_are_refused():
    model = network()
    optimizer = scaffnew(sgd(model), model, {}, compress=torch.clone)
    with pytest.raises(RuntimeError, match="closure"):
        optimizer.step(lambda: torch.zeros(()))
    parts = nn.Sequential(*list(model))
    with pytest.raises(RuntimeError, match=r"model\(inputs\)"):
        loop(parts, optimizer)
