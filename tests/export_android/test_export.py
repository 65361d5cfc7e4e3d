"""Programs run by ExecuTorch beside torch; what cannot be one is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from flwr_caesar.android.command import main
from flwr_caesar.android.errors import ExportError, ParityError
from flwr_caesar.android.export import export
from flwr_caesar.android.lowering import Program
from flwr_caesar.android.rewriting import REWRITES
from flwr_caesar.tasks.models import CNN, MLP, CharLSTM

pytestmark = pytest.mark.usefixtures("executorch")
IMAGE = (1, 28, 28)


def small(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(5))


def made(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Return a model whose lazy layers know their size."""
    with torch.no_grad():
        model(torch.zeros(4, *shape))
    return model


def test_the_cnn_trains_as_in_torch(tmp_path: Path) -> None:
    """By the command; then by hand, against a loop that knows no exporter."""
    folder = tmp_path / "out"
    arguments = ["--example-shape", "1x28x28", "--classes", "10", "-o", str(folder)]
    assert main(["cnn", *arguments]) == 0
    found = json.loads((folder / "manifest.json").read_text())
    data = (folder / "program.pte").read_bytes()
    assert found["program"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert found["parity"]["steps"] == 20
    assert max(found["parity"][k] for k in ("gradients", "absolute", "loss")) < 1e-5

    torch.manual_seed(3)
    model = CNN(IMAGE, 10)
    state = model.state_dict()
    listed = [(entry["name"], tuple(entry["shape"])) for entry in found["tensors"]]
    assert listed == [(name, tuple(tensor.shape)) for name, tensor in state.items()]
    tensors = [tensor.clone() for tensor in state.values()]
    program = Program(data)
    exact = 0
    for _ in range(20):
        x, y = torch.randn(32, *IMAGE), torch.randint(0, 10, (32,))
        weights = torch.full((32,), 1 / 32)
        loss, *gradients = program.run("train", [*tensors, x, y, weights])
        model.load_state_dict(dict(zip(state, tensors, strict=True)))
        model.zero_grad()
        expected = F.cross_entropy(model(x), y)
        expected.backward()
        assert abs(loss - expected) < 1e-5
        off = [
            float((gradient - parameter.grad).abs().max())
            for gradient, parameter in zip(gradients, model.parameters(), strict=True)
        ]
        # Where two places of a window are equal but for rounding, either is right.
        exact += max(off) < 1e-5
        assert max(off) < 1e-2
        tensors = [t - 0.05 * g for t, g in zip(tensors, gradients, strict=True)]
    assert exact >= 18
    model.load_state_dict(dict(zip(state, tensors, strict=True)))
    inputs = [*tensors, x, y, torch.ones(32)]
    loss, correct = program.run("evaluate", inputs)
    outputs = model.eval()(x)
    assert abs(loss - F.cross_entropy(outputs, y, reduction="sum")) < 1e-3
    assert correct == (outputs.argmax(1) == y).sum()


def test_the_mlp_trains_as_in_torch() -> None:
    parity = export(MLP(IMAGE, 10, 200), IMAGE).manifest["parity"]
    assert parity["steps"] == 20
    assert max(parity[k] for k in ("gradients", "absolute", "loss")) < 1e-5


def test_max_pooling_as_executorch_has_it_is_refused() -> None:
    model = made(small(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)), (1, 8, 8))
    assert export(model, (1, 8, 8), batch=4).manifest["classes"] == 5
    own = {op: how for op, how in REWRITES.items() if "max_pool" not in str(op)}
    assert len(own) == len(REWRITES) - 1
    with pytest.raises(ParityError, match=r"gradient of '0\.(weight|bias)'"):
        export(model, (1, 8, 8), batch=4, rewrites=own)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int | None]] = {
    "batch normalisation": (
        lambda: small(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.AvgPool2d(2)),
        (1, 9, 9),
        None,
    ),
    "group normalisation": (
        lambda: small(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(3)),
        (1, 8, 8),
        None,
    ),
    "attention on tokens": (
        lambda: small(
            nn.Embedding(11, 8),
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        ),
        (6,),
        11,
    ),
    "LSTM": (lambda: CharLSTM(5, embedding=4, hidden=8, layers=1), (3,), 5),
}


@pytest.mark.parametrize("name", MODELS)
def test_other_layers_train_as_in_torch(name: str) -> None:
    torch.manual_seed(0)
    make, shape, integers = MODELS[name]
    model = make()
    if integers is None:
        made(model, shape)
    else:
        model(torch.zeros(4, *shape, dtype=torch.int64))
    found = export(model, shape, batch=8, integers=integers).manifest
    assert found["parity"]["gradients"] < 1e-5
    roles = {entry["name"]: entry["role"] for entry in found["tensors"]}
    if name == "batch normalisation":
        assert found["full_batches"]
        assert roles["1.running_var"] == roles["1.num_batches_tracked"] == "updated"
    else:
        assert not found["full_batches"]
        assert set(roles.values()) == {"trained"}


def test_a_frozen_layer_has_no_gradient() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    model[0].requires_grad_(False)
    found = export(model, (4,), batch=4, loss="binary_cross_entropy").manifest
    assert [entry["role"] for entry in found["tensors"]] == ["constant"] * 2 + [
        "trained"
    ] * 2
    assert found["classes"] == 2


class Branching(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Rebinding(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = self.seen + 1
        return super().forward(x)


class Noisy(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5, self.training)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(x))
        return out


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a branch": (lambda: Branching(4, 3), "no branch on a tensor's value"),
    "a buffer put elsewhere": (Rebinding, "updated by"),
    "dropout": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)),
        r"'1' \(Dropout\) drops 0.5 at random.*--without-dropout",
    ),
    "dropout as a function": (lambda: Noisy(4, 3), "draws random numbers"),
    "tied weights": (Tied, "'a.weight' and 'b.weight' are one tensor"),
    "float64": (lambda: nn.Linear(4, 3).double(), r"use model.float\(\)"),
    "other inputs": (lambda: nn.Linear(5, 3), r"does not run on inputs \(2, 4\)"),
    "one output": (
        lambda: nn.Linear(4, 1),
        r"outputs are \(2, 1\).*\(batch, classes\)",
    ),
    "nothing to train": (
        lambda: nn.Linear(4, 3).requires_grad_(False),
        "nothing to train",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_program_is_refused(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(ExportError, match=f"(?is){said}"):
        export(make(), (4,), batch=2)


def test_dropout_can_be_switched_off() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    assert export(model, (4,), batch=2, without_dropout=True).manifest["classes"] == 3
    assert model[1].p == 0.5


def test_what_is_written_by_a_refused_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_model.py").write_text(
        "from torch import nn\n"
        "def make(): return nn.Sequential(nn.Linear(4, 3), nn.Dropout())\n"
        "def other(): return 3\n"
    )
    rest = ["--example-shape", "4", "-o", "out"]
    for arguments, said in (
        (["own_model:make"], "--without-dropout"),
        (["own_model:other"], "returned a int"),
        (["own_model:missing"], "cannot be made: AttributeError"),
        (["resnet"], "or choose one of the reference app: char_lstm"),
        (["cnn"], "say --classes"),
    ):
        assert main([*arguments, *rest]) == 1
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main(["own_model:make", "--example-shape", "28,28", "-o", "out"])
    assert "write it as 1x28x28" in capsys.readouterr().err
