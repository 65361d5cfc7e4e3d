"""A model computes with changed weights, holds its own, and they get the gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from flwr_caesar.clients.straight_through import EvaluatedAt  # noqa: E402


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(5, 6), nn.LSTM(6, 4, batch_first=True), Last(), nn.Linear(4, 3)
    )


class Last(nn.Module):
    def forward(self, outputs):
        return outputs[0][:, -1]


INPUTS = torch.tensor([[0, 1, 4], [2, 3, 1]])
TARGET = torch.tensor([0, 2])


def loss_of(model: nn.Module):
    return nn.functional.cross_entropy(model(INPUTS), TARGET)


def sign(w):
    return w.sign() / 3


def test_the_gradient_is_the_one_at_the_changed_weights():
    model, changed = network(), network()
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for p in changed.parameters():
            p.copy_(sign(p))
    expected = loss_of(changed)
    expected.backward()
    with EvaluatedAt(model, sign, model.parameters()):
        loss = loss_of(model)
        loss.backward()
    assert loss == expected
    gradients = dict(changed.named_parameters())
    for name, p in model.named_parameters():
        assert torch.equal(p, own[name])
        assert torch.equal(p.grad, gradients[name].grad)


def test_only_the_chosen_are_changed_and_only_while_it_is_in_force():
    model = network()
    before = model(INPUTS)
    names = list(model.state_dict())
    with EvaluatedAt(model, torch.zeros_like, [model[3].weight]) as evaluated:
        assert torch.equal(model(INPUTS), model[3].bias.expand(2, 3))
        assert list(model.state_dict()) == names
        assert evaluated.calls == 1
    assert torch.equal(model(INPUTS), before)


def test_without_gradients_it_is_in_force_too():
    model = network().eval()
    with torch.no_grad(), EvaluatedAt(model, torch.zeros_like, model.parameters()):
        assert not model(INPUTS).any()


def test_weights_that_are_tied_are_changed_once():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    seen = []

    def change(w):
        seen.append(w)
        return 2 * w

    x = torch.ones(1, 3)
    expected = x @ (2 * model[0].weight).T @ (2 * model[0].weight).T
    with EvaluatedAt(model, change, model.parameters()):
        found = model(x)
    torch.testing.assert_close(found, expected)
    assert len(seen) == 1


@pytest.mark.parametrize("where", ["forward", "change"])
def test_an_error_loses_no_weight(where):
    class Broken(nn.Module):
        def forward(self, x):
            raise KeyError

    def change(w):
        if where == "change" and w.ndim == 1:
            raise KeyError
        return 0 * w

    model = nn.Sequential(nn.Linear(3, 3), Broken())
    weight, bias = model[0].weight, model[0].bias
    with EvaluatedAt(model, change, model.parameters()), pytest.raises(KeyError):
        model(torch.ones(1, 3))
    assert model[0].weight is weight
    assert model[0].bias is bias
