"""Only adapters travel, on a frozen Llama that was trained before."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

torch = pytest.importorskip("torch")
if not all(map(find_spec, ("transformers", "peft"))):
    pytest.skip("transformers and peft are not installed", allow_module_level=True)

from flwr_caesar.clients.training import train  # noqa: E402
from flwr_caesar.tasks import ConfigError, plays  # noqa: E402
from flwr_caesar.tasks import lora as lora_module  # noqa: E402
from flwr_caesar.tasks.models import (  # noqa: E402
    build_model,
    exchanged_state,
    load_exchanged,
)
from flwr_caesar.tasks.pretrain import pretrain  # noqa: E402

MODEL = {
    "name": "llama_lora",
    "input_shape": [80],
    "num_classes": 80,
    "hidden": 16,
    "intermediate": 24,
    "layers": 1,
    "heads": 2,
    "rank": 2,
    "alpha": 4,
}
SHAPE = lora_module.shape_of(MODEL)
CODES = np.random.default_rng(0).integers(0, 80, 4000).astype(np.uint8)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(plays, "text_of", lambda which: CODES)
    lora_module._pretrained.cache_clear()
    yield tmp_path
    lora_module._pretrained.cache_clear()


@pytest.fixture
def model(cache):
    pretrain(SHAPE, steps=2)
    return build_model(MODEL, seed=1)


def test_only_adapters_in_bfloat16_travel_and_train(model):
    state = exchanged_state(model)
    assert len(state) == 2 * 7
    assert all("lora_" in name for name in state)
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = np.random.default_rng(1).integers(0, 80, (4, 80))
    train(model, x, x, batch_size=2, lr=1.0, steps=3)
    changed = {
        name
        for name, tensor in model.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed <= set(state)
    assert {name for name in state if "lora_B" in name} <= changed


def test_the_packaged_model_has_as_many_parameters_as_its_file_says(cache):
    folder = Path(__file__).parents[2] / "conf" / "model"
    config = OmegaConf.load(folder / "llama_lora.yaml")
    data = {"input_shape": [80], "num_classes": 80}
    tree = OmegaConf.create({"model": config, "data": data})
    settings = OmegaConf.to_container(tree, resolve=True)["model"]
    pretrain(lora_module.shape_of(settings), steps=1)
    model = build_model(settings, seed=0)
    travelling = sum(tensor.numel() for tensor in exchanged_state(model).values())
    everything = sum(parameter.numel() for parameter in model.parameters())
    assert (travelling, everything - travelling) == (104_448, 502_656)


def test_new_adapters_change_nothing_and_the_seed_names_them(model):
    x = torch.arange(80)[None]
    assert model(x).dtype is torch.float32
    same, other = build_model(MODEL, seed=1), build_model(MODEL, seed=2)
    plain = lora_module._pretrained(tuple(SHAPE.items()))
    logits = plain(input_ids=x).logits.float().transpose(1, 2)
    assert torch.equal(model(x), logits)
    assert torch.equal(model(x), other(x))
    state = exchanged_state(model)
    for name, tensor in exchanged_state(same).items():
        assert torch.equal(tensor, state[name])
    assert any(not torch.equal(t, state[n]) for n, t in exchanged_state(other).items())


def test_logits_follow_each_position_from_what_came_before(model):
    x = torch.arange(6).repeat(2, 1)
    x[1, 3:] = 70
    logits = model(x)
    assert logits.shape == (2, 80, 6)
    assert torch.equal(logits[0, :, :3], logits[1, :, :3])
    assert not torch.equal(logits[0, :, 3:], logits[1, :, 3:])


def test_what_travels_is_loaded_whole_or_refused(model):
    other = build_model(MODEL, seed=2)
    load_exchanged(other, exchanged_state(model))
    for name, tensor in exchanged_state(other).items():
        assert torch.equal(tensor, exchanged_state(model)[name])
    fewer = dict(list(exchanged_state(model).items())[1:])
    with pytest.raises(RuntimeError, match="not those that this model exchanges"):
        load_exchanged(other, fewer)


def test_training_before_comes_to_equal_bits(cache):
    first = pretrain(SHAPE, steps=2).read_bytes()
    assert pretrain(SHAPE, steps=2).read_bytes() == first
    assert pretrain(SHAPE, steps=3).read_bytes() != first


def test_a_llama_that_was_not_trained_says_the_command(cache):
    with pytest.raises(ConfigError, match=r"python -m flwr_caesar\.tasks\.pretrain"):
        build_model(MODEL, seed=1)


@pytest.mark.parametrize("damage", ["cut", "other", "nan", "empty"])
def test_a_damaged_llama_is_refused(model, damage):
    path = lora_module.base_path(SHAPE)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        from safetensors.torch import load_file, save_file

        state = load_file(path)
        name = next(iter(state))
        if damage == "nan":
            state[name][0] = torch.nan
        else:
            state[name] = state[name][:1].clone()
        save_file(state, path)
    lora_module._pretrained.cache_clear()
    with pytest.raises(ConfigError, match="delete it and train it anew") as caught:
        build_model(MODEL, seed=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("model.input_shape", {"input_shape": [1, 28, 28]}),
        ("model.rank", {"rank": 0}),
        ("model.heads", {"heads": 3}),
    ],
)
def test_a_bad_value_is_an_error_that_names_its_key(cache, key, changes):
    with pytest.raises(ConfigError) as caught:
        build_model({**MODEL, **changes}, seed=0)
    assert caught.value.key == key
