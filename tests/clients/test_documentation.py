"""The loops in docs/local-training.md work as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

PAGE = Path(__file__).parents[2] / "docs" / "local-training.md"


def test_the_loops_train() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    names: dict[str, object] = {}
    # The others show two lines of an app each; tests/apps has whole ones.
    for block in (block for block in blocks if "def " in block):
        exec(compile(block, "docs/local-training.md", "exec"), names)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    x = torch.randn(30, 4)
    batches = [(x, x[:, :3].argmax(1))] * 20

    def loss() -> float:
        return torch.nn.functional.cross_entropy(model(x), batches[0][1]).item()

    before = loss()
    control = {"bias": np.zeros(3, np.float32)}
    names["train"](model, batches, control, 0.1)  # type: ignore[operator]
    after = loss()
    assert after < before
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names["train_at_four_bits"](model, batches, optimizer)  # type: ignore[operator]
    assert loss() < after
