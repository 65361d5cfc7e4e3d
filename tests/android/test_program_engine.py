"""The Kotlin engine trains with exported programs, run by ExecuTorch, as torch does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from flwr_caesar.android.export import export
from flwr_caesar.android.manifest import write

from .jvm import QUICK_START, Jvm
from .program_host import read_values, write_values
from .toolchain import class_path

STEPS, COUNT, RATE, MOMENTUM = 4, 40, 0.1, 0.9


pytestmark = pytest.mark.usefixtures("executorch")


def run(
    folder: Path, task: Path, results: Path, batch: int
) -> subprocess.CompletedProcess[str]:
    host = [sys.executable, "-P", str(Path(__file__).with_name("program_host.py"))]
    return subprocess.run(
        [
            *("java", QUICK_START),
            *("-cp", class_path(), "io.flwrcaesar.bench.ProgramMainKt"),
            *(str(folder), str(task), str(results), str(batch), str(STEPS)),
            *(*host, str(folder / "program.pte")),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def task_of(model: nn.Module, path: Path, width: int) -> tuple[Tensor, Tensor]:
    x, y = torch.randn(COUNT, width), torch.randint(0, 3, (COUNT,))
    with path.open("wb") as sink:
        write_values(sink, [x, y, *model.state_dict().values()])
    return x, y


def test_batches_larger_than_the_programs(jvm: Jvm, tmp_path: Path) -> None:
    """All examples in each step, so that their order does not matter."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    made = export(model, (6,), batch=16)
    write(tmp_path, made.lowered, made.manifest)
    task, results = tmp_path / "task", tmp_path / "results"
    x, y = task_of(model, task, 6)
    done = run(tmp_path, task, results, COUNT)
    assert done.returncode == 0, done.stderr
    with results.open("rb") as source:
        told, *tensors = read_values(source)
    logits = model(x)
    before = [F.cross_entropy(logits, y), (logits.argmax(1) == y).float().mean()]
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    expected = torch.stack([*before, torch.stack(losses).mean()]).detach()
    torch.testing.assert_close(told, expected, rtol=1e-5, atol=1e-6)
    for found, parameter in zip(tensors, model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.detach(), rtol=1e-5, atol=1e-6)


def test_statistics_see_full_batches_only(jvm: Jvm, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    made = export(model, (6,), batch=16)
    write(tmp_path, made.lowered, made.manifest)
    task, results = tmp_path / "task", tmp_path / "results"
    task_of(model, task, 6)
    done = run(tmp_path, task, results, 5)
    assert done.returncode == 0, done.stderr
    with results.open("rb") as source:
        _, *tensors = read_values(source)
    found = dict(zip(model.state_dict(), tensors, strict=True))
    assert found["1.num_batches_tracked"] == STEPS
    # Zeros in the place of examples would have made it much smaller.
    assert (found["1.running_var"] > 0.65 * 0.3).all()

    (tmp_path / "program.pte").write_bytes(made.lowered.data[:-1] + b"\\0\\0")
    assert (
        "is not the program of its manifest" in run(tmp_path, task, results, 5).stderr
    )
    other = {**made.manifest, "format": 2}
    (tmp_path / "manifest.json").write_text(json.dumps(other))
    assert "this release reads 1" in run(tmp_path, task, results, 5).stderr
