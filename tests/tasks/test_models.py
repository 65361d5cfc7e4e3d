from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from flwr_caesar.tasks import ConfigError  # noqa: E402
from flwr_caesar.tasks.models import build_model, training_flops  # noqa: E402

needs_torchvision = pytest.mark.skipif(
    find_spec("torchvision") is None, reason="torchvision is not installed"
)
CNN = {"name": "cnn", "input_shape": [1, 28, 28], "num_classes": 10}
LSTM = {
    "name": "char_lstm",
    "input_shape": [80],
    "num_classes": 80,
    "embedding": 8,
    "hidden": 256,
    "layers": 2,
    "predict": "last",
}
BATCH = {
    "name": "resnet18",
    "input_shape": [3, 32, 32],
    "num_classes": 10,
    "norm": "batch",
}
GROUP = {**BATCH, "norm": "group", "norm_groups": 32}
RESNETS = [
    pytest.param(BATCH, marks=needs_torchvision, id="resnet18_bn"),
    pytest.param(GROUP, marks=needs_torchvision, id="resnet18_gn"),
]
MLP = {**CNN, "name": "mlp", "hidden": 200}
SERIES = {"name": "cnn1d", "input_shape": [6, 128], "num_classes": 7}
ALL = [
    pytest.param(CNN, id="cnn"),
    pytest.param(SERIES, id="cnn1d"),
    pytest.param(MLP, id="mlp"),
    pytest.param(LSTM, id="char_lstm"),
    *RESNETS,
]
SIZES = {
    "cnn": 214_090,
    "cnn1d": 234_279,
    "mlp": 199_210,
    "char_lstm": 819_920,
    "resnet18": 11_173_962,
}


@pytest.mark.parametrize("cfg", ALL)
def test_the_number_of_parameters_and_the_shape_of_the_logits(cfg):
    model = build_model(cfg, seed=0)
    assert sum(p.numel() for p in model.parameters()) == SIZES[cfg["name"]]
    shape = cfg["input_shape"]
    x = torch.zeros(2, *shape, dtype=torch.int64 if len(shape) == 1 else torch.float32)
    assert model(x).shape == (2, cfg["num_classes"])


def test_an_lstm_predicts_after_each_position_from_what_came_before():
    small = {**LSTM, "hidden": 16, "layers": 1, "predict": "all"}
    model = build_model(small, seed=0).eval()
    x = torch.arange(6).repeat(2, 1)
    x[1, 3:] = 70
    logits = model(x)
    assert logits.shape == (2, 80, 6)
    assert torch.equal(logits[0, :, :3], logits[1, :, :3])
    assert not torch.equal(logits[0, :, 3:], logits[1, :, 3:])
    last = build_model({**small, "predict": "last"}, seed=0).eval()
    assert torch.allclose(last(x), logits[:, :, -1])


def test_operations_of_training_are_three_forward_passes():
    """Two operations for each weight and position it is applied to."""
    cnn = 400 * 24**2 + 12_800 * 8**2 + 512 * 384 + 384 * 10
    x = np.zeros((1, 1, 28, 28), np.float32)
    assert training_flops(build_model(CNN, seed=0), x) == 3 * 2 * cnn
    series = 6 * 32 * 9 * 120 + 32 * 64 * 9 * 52 + 1664 * 128 + 128 * 7
    x = np.zeros((1, 6, 128), np.float32)
    assert training_flops(build_model(SERIES, seed=0), x) == 3 * 2 * series
    small = {**LSTM, "hidden": 16, "layers": 1}
    lstm = 80 * (4 * 16 * (8 + 16 + 2)) + 16 * 80
    x = np.zeros((1, 80), np.int64)
    assert training_flops(build_model(small, seed=0), x) == 3 * 2 * lstm


@needs_torchvision
def test_resnet18_has_as_many_tensors_as_torchvisions():
    assert len(build_model(BATCH, seed=0).state_dict()) == 122
    assert len(build_model(GROUP, seed=0).state_dict()) == 62


@pytest.mark.parametrize("cfg", RESNETS)
def test_resnet18_keeps_the_resolution_of_small_images(cfg):
    grey = {**cfg, "input_shape": [1, 28, 28]}
    model = build_model(grey, seed=0)
    shapes = []
    model.layer1.register_forward_hook(lambda *args: shapes.append(args[2].shape))
    model(torch.zeros(2, 1, 28, 28))
    assert shapes == [(2, 64, 28, 28)]


@pytest.mark.parametrize("cfg", ALL)
def test_the_seed_names_the_parameters_and_leaves_the_generator_alone(cfg):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    a = build_model(cfg, seed=1).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(12)
    b, c = build_model(cfg, seed=1).state_dict(), build_model(cfg, seed=2).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_other_devices_are_not_seeded(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.xpu, "manual_seed_all", seeded.append)
    build_model(CNN, seed=1)
    assert not seeded


@pytest.mark.parametrize(
    ("key", "cfg"),
    [
        ("model.name", {**CNN, "name": "transformer"}),
        ("model.input_shape", {**CNN, "input_shape": [80]}),
        ("model.input_shape", {**CNN, "input_shape": "28"}),
        ("model.input_shape", {**CNN, "input_shape": [1, 15, 28]}),
        ("model.input_shape", {**LSTM, "input_shape": [1, 28, 28]}),
        ("model.input_shape", {**SERIES, "input_shape": [1, 28, 28]}),
        ("model.input_shape", {**SERIES, "input_shape": [6, 25]}),
        ("model.num_classes", {**CNN, "num_classes": 0}),
        ("model.hidden", {**LSTM, "hidden": -1}),
        ("model.norm", {**BATCH, "norm": "layer"}),
        ("model.norm_groups", {**GROUP, "norm_groups": 3}),
    ],
)
def test_a_bad_value_is_an_error_that_names_its_key(key, cfg):
    with pytest.raises(ConfigError) as caught:
        build_model(cfg, seed=0)
    assert caught.value.key == key


@needs_torchvision
def test_torchvision_can_be_imported_twice_and_before_anything_else():
    code = (
        "from flwr_caesar.tasks.vision import import_torchvision as get;"
        "assert get() is get();"
        "import torchvision; assert torchvision is get();"
        "get().models.resnet18()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
