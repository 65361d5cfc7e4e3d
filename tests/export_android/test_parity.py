"""The comparison itself: what rounding explains is let through, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from flwr_caesar.android.errors import ParityError
from flwr_caesar.android.functional import Functional
from flwr_caesar.android.losses import LOSSES
from flwr_caesar.android.parity import Batches, check


class Level(Batches):
    """Both inputs are equal, so that their difference is 0 but for rounding."""

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        x, y, weights = super().draw(2 * step)
        x[:, 1] = x[:, 0]
        return x, y, weights


class Nudged:
    """Torch in the place of a program, at weights of another rounding, or wrong."""

    def __init__(self, functional: Functional, factor: float) -> None:
        self.functional, self.factor = functional, factor

    def run(self, method: str, inputs: Sequence[Tensor]) -> list[Tensor]:
        if method == "evaluate":
            return list(self.functional.evaluate(*inputs))
        weight, *rest = inputs
        loss, *gradients = self.functional.train(
            weight * torch.tensor([1 + 2.0**-23, 1.0]), *rest
        )
        return [loss, *(gradient * self.factor for gradient in gradients)]


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_only_what_rounding_explains_is_let_through(factor: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([1.0, -1.0])
    batches = Level((2,), 8, 3)
    functional = Functional(model, LOSSES["cross_entropy"], batches.draw(0)[0])
    program = Nudged(functional, factor)
    if factor == 1:
        parity = check(program, functional, batches, steps=3)  # type: ignore[arg-type]
        assert parity.kinks >= 1
        assert parity.gradients < 1e-5
    else:
        with pytest.raises(ParityError, match="gradients by"):
            check(program, functional, batches, steps=3)  # type: ignore[arg-type]
