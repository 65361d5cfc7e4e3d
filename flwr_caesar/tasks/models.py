"""The models of the reference app."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .checks import get_choice, get_int, get_shape
from .errors import ConfigError
from .examples import Array
from .vision import import_torchvision

_MIN_SIDE = 16
_MIN_SAMPLES = 26


def build_model(model_cfg: Mapping[str, Any], seed: int) -> nn.Module:
    """Build a model whose initial parameters are named by the seed.

    Parameters
    ----------
    model_cfg : mapping
        The ``model`` group of the configuration; see ``conf/model``.
    seed : int
        Two calls with equal arguments give equal parameters, whatever torch's global
        generator holds; that generator is not advanced.

    Returns
    -------
    torch.nn.Module
        On the CPU, in training mode.

    Raises
    ------
    ConfigError
        If a setting cannot be used, or does not fit the data.
    """
    builders: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
        "cnn": _cnn,
        "cnn1d": _cnn1d,
        "mlp": _mlp,
        "resnet18": _resnet18,
        "char_lstm": _char_lstm,
        "llama_lora": _llama_lora,
    }
    name = get_choice(model_cfg, "model", "name", builders)
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` seeds other devices too, and takes longer than a model.
        torch.default_generator.manual_seed(seed)
        return builders[name](model_cfg)


def exchanged_state(model: nn.Module) -> dict[str, Tensor]:
    """Return what devices and server send each other of a model.

    All of its state but frozen parameters, which every device has already.
    """
    every = model.named_parameters(remove_duplicate=False)  # tied ones by each name
    frozen = {name for name, parameter in every if not parameter.requires_grad}
    state = model.state_dict()
    return {name: tensor for name, tensor in state.items() if name not in frozen}


def load_exchanged(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set what `exchanged_state` returns.

    Raises
    ------
    RuntimeError
        If names or shapes are others.
    """
    if exchanged_state(model).keys() != state.keys():
        raise RuntimeError("the tensors are not those that this model exchanges")
    model.load_state_dict(state, strict=False)


def training_flops(model: nn.Module, x: Array) -> float:
    """Return the operations of training on one example once.

    Two for each weight and each position it is applied to, in convolutions, linear and
    recurrent layers; three times that, because the backward pass costs twice the
    forward one. What other layers do is left out.

    Parameters
    ----------
    model : torch.nn.Module
        Runs once on the example, without a gradient.
    x : ndarray, shape (1, ...)
        An example.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        nonlocal total
        if isinstance(layer, nn.RNNBase):
            weights = sum(weight.numel() for weight in layer.parameters())
            total += 2 * weights * inputs[0].shape[1 if layer.batch_first else 0]
        elif isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            total += 2 * layer.weight.numel() * output.numel() // len(layer.weight)

    hooks = [layer.register_forward_hook(count) for layer in model.modules()]
    try:
        with torch.no_grad():
            model(torch.from_numpy(x.copy()))
    finally:
        for hook in hooks:
            hook.remove()
    return 3.0 * total


class CNN(nn.Module):
    """Two unpadded 5x5 convolutions and two linear layers, no normalisation.

    214,090 parameters for 28x28 grey images and 10 classes. Input ``(n, channels,
    height, width)``, output logits ``(n, classes)``.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.conv1 = nn.Conv2d(channels, 16, kernel_size=5)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=5)
        height, width = (((side - 4) // 2 - 4) // 2 for side in (height, width))
        self.fc1 = nn.Linear(32 * height * width, 384)
        self.fc2 = nn.Linear(384, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc2(x)
        return logits


class CNN1d(nn.Module):
    """Two unpadded convolutions over time, of width 9, and two linear layers.

    234,279 parameters for 6 axes, 128 samples and 7 classes. Input ``(n, axes,
    samples)``, output logits ``(n, classes)``.
    """

    def __init__(self, input_shape: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        axes, samples = input_shape
        self.conv1 = nn.Conv1d(axes, 32, kernel_size=9)
        self.conv2 = nn.Conv1d(32, 64, kernel_size=9)
        self.fc1 = nn.Linear(64 * (((samples - 8) // 2 - 8) // 2), 128)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of series."""
        x = nn.functional.max_pool1d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool1d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc2(x)
        return logits


class MLP(nn.Module):
    """Three linear layers with ReLU between them: the FedAvg paper's 2NN.

    199,210 parameters for 28x28 grey images, 200 hidden units and 10 classes. Input
    ``(n, channels, height, width)``, output logits ``(n, classes)``.

    References
    ----------
    McMahan et al. (2017), arXiv:1602.05629.
    """

    def __init__(
        self, input_shape: tuple[int, int, int], num_classes: int, hidden: int
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(math.prod(input_shape), hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        x = torch.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(torch.relu(self.fc2(x)))
        return logits


class CharLSTM(nn.Module):
    """Stacked LSTM that predicts the character after a sequence or each position.

    819,920 parameters with LEAF's Shakespeare settings: embedding 8, two layers of
    256, 80 characters. Input int64 ``(n, length)``, output logits ``(n, classes)``, or
    ``(n, classes, length)`` at every position.

    References
    ----------
    Caldas et al. (2018), arXiv:1812.01097.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        embedding: int,
        hidden: int,
        layers: int,
        every_position: bool = False,
    ) -> None:
        super().__init__()
        self.every_position = every_position
        self.embedding = nn.Embedding(num_classes, embedding)
        self.lstm = nn.LSTM(embedding, hidden, num_layers=layers, batch_first=True)
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the character after each sequence or position."""
        outputs, _ = self.lstm(self.embedding(x))
        if self.every_position:
            each: Tensor = self.fc(outputs).transpose(1, 2)
            return each
        logits: Tensor = self.fc(outputs[:, -1])
        return logits


def _cnn(config: Mapping[str, Any]) -> nn.Module:
    return CNN(_image_shape(config), get_int(config, "model", "num_classes"))


def _cnn1d(config: Mapping[str, Any]) -> nn.Module:
    shape = get_shape(config, "model", "input_shape")
    if len(shape) != 2 or shape[1] < _MIN_SAMPLES:
        raise ConfigError(
            "model.input_shape",
            f"cnn1d reads series, [axes, samples], of at least {_MIN_SAMPLES} samples, "
            f"not {list(shape)}; choose it with data=activity",
        )
    classes = get_int(config, "model", "num_classes")
    return CNN1d((shape[0], shape[1]), classes)


def _mlp(config: Mapping[str, Any]) -> nn.Module:
    return MLP(
        _image_shape(config),
        get_int(config, "model", "num_classes"),
        get_int(config, "model", "hidden"),
    )


def _char_lstm(config: Mapping[str, Any]) -> nn.Module:
    shape = get_shape(config, "model", "input_shape")
    if len(shape) != 1:
        raise ConfigError(
            "model.input_shape",
            f"char_lstm reads sequences, [length], not {list(shape)}; "
            "choose it with data=shakespeare or data=pydoc",
        )
    return CharLSTM(
        get_int(config, "model", "num_classes"),
        embedding=get_int(config, "model", "embedding"),
        hidden=get_int(config, "model", "hidden"),
        layers=get_int(config, "model", "layers"),
        every_position=get_choice(config, "model", "predict", ("last", "all")) == "all",
    )


def _llama_lora(config: Mapping[str, Any]) -> nn.Module:
    from .lora import lora_llama  # imports transformers, which takes seconds

    return lora_llama(config)


def _resnet18(config: Mapping[str, Any]) -> nn.Module:
    channels, _, _ = _image_shape(config)
    norm = get_choice(config, "model", "norm", ("batch", "group"))
    norm_layer = nn.BatchNorm2d if norm == "batch" else _group_norm(config)
    try:
        torchvision = import_torchvision()
    except ImportError as err:
        raise ConfigError(
            "model.name",
            "resnet18 needs torchvision: pip install 'flwr-caesar[vision]'",
        ) from err
    model: nn.Module = torchvision.models.resnet18(
        num_classes=get_int(config, "model", "num_classes"), norm_layer=norm_layer
    )
    stem = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = stem
    model.maxpool = nn.Identity()
    return model


def _group_norm(config: Mapping[str, Any]) -> Callable[[int], nn.Module]:
    groups = get_int(config, "model", "norm_groups")
    if 64 % groups:
        raise ConfigError(
            "model.norm_groups", f"must divide 64, the fewest channels; {groups} not"
        )
    return lambda channels: nn.GroupNorm(groups, channels)


def _image_shape(config: Mapping[str, Any]) -> tuple[int, int, int]:
    shape = get_shape(config, "model", "input_shape")
    if len(shape) != 3 or min(shape[1:]) < _MIN_SIDE:
        raise ConfigError(
            "model.input_shape",
            f"{config['name']} reads images, [channels, height, width], of at least "
            f"{_MIN_SIDE} pixels a side, not {list(shape)}; "
            "for text choose model=char_lstm",
        )
    return shape[0], shape[1], shape[2]
