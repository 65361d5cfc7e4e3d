"""LoRA adapters in bfloat16 on a small Llama that was trained on other plays."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .cache import cache_folder, key_of
from .checks import get_int, get_shape
from .errors import ConfigError
from .vision import import_torchvision

_INSTALL = "llama_lora needs transformers and peft: pip install 'flwr-caesar[lora]'"
_PRETRAIN = (
    "llama_lora needs a Llama that was trained on the other plays, once: "
    "python -m flwr_caesar.tasks.pretrain (minutes)"
)
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_SHAPE = ("num_classes", "hidden", "intermediate", "layers", "heads")


class LoraLlama(nn.Module):
    """A causal language model with adapters; only they are trained.

    Input int64 ``(n, length)``, output float32 logits of the character after each
    position, ``(n, classes, length)``.
    """

    def __init__(self, adapted: nn.Module) -> None:
        super().__init__()
        self.adapted = adapted

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the character after each position."""
        logits: Tensor = self.adapted(input_ids=x, use_cache=False).logits
        return logits.float().transpose(1, 2)


def lora_llama(config: Mapping[str, Any]) -> nn.Module:
    """Return the pre-trained Llama in bfloat16, frozen, with new adapters.

    Raises
    ------
    ConfigError
        If a setting cannot be used, a package is missing, or the Llama was not
        trained yet.
    """
    if len(get_shape(config, "model", "input_shape")) != 1:
        raise ConfigError(
            "model.input_shape",
            "llama_lora reads sequences, [length]: choose it with "
            "data=shakespeare_roles",
        )
    rank = get_int(config, "model", "rank")
    shape = shape_of(config)
    base = copy.deepcopy(_pretrained(tuple(shape.items())))
    _, peft = _libraries()
    adapters = peft.LoraConfig(
        r=rank,
        lora_alpha=get_int(config, "model", "alpha"),
        target_modules=list(_TARGETS),
    )
    return LoraLlama(peft.get_peft_model(base, adapters, autocast_adapter_dtype=False))


def shape_of(config: Mapping[str, Any]) -> dict[str, int]:
    """Return what of the ``model`` group names the Llama, checked."""
    return {key: get_int(config, "model", key) for key in _SHAPE}


def new_llama(shape: Mapping[str, int]) -> nn.Module:
    """Return a Llama of this shape, float32, whose parameters are random.

    Raises
    ------
    ConfigError
        If a package is missing, or there is no such Llama.
    """
    transformers, _ = _libraries()
    if shape["hidden"] % (2 * shape["heads"]):
        raise ConfigError(
            "model.heads", f"must divide half of model.hidden, {shape['hidden']}"
        )
    config = transformers.LlamaConfig(
        vocab_size=shape["num_classes"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["intermediate"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: nn.Module = transformers.LlamaForCausalLM(config)
    return model


def base_path(shape: Mapping[str, int]) -> Path:
    """Return where the pre-trained Llama of this shape is, or is to be."""
    return cache_folder() / f"{key_of('llama', dict(shape))}.safetensors"


@lru_cache(maxsize=2)
def _pretrained(items: tuple[tuple[str, int], ...]) -> nn.Module:
    shape = dict(items)
    # The adapters' random numbers must not depend on whether this was called before.
    with torch.random.fork_rng(devices=[]):
        model = new_llama(shape).to(torch.bfloat16)
    path = base_path(shape)
    if not path.is_file():
        raise ConfigError("model.name", f"{_PRETRAIN}; it is to be at {path}")
    try:
        state = load_file(path)
        for name, tensor in state.items():
            if tensor.dtype is not torch.bfloat16 or not tensor.isfinite().all():
                raise ValueError(f"{name} is not of finite bfloat16")
        # The last layer is the embedding, which is stored once.
        found = model.load_state_dict(state, strict=False)
        if found.unexpected_keys or set(found.missing_keys) - {"lm_head.weight"}:
            raise ValueError("its tensors are not those of the model")
    except (OSError, ValueError, RuntimeError, SafetensorError) as err:
        raise ConfigError(
            "model.name",
            f"{path} cannot be used, delete it and train it anew, "
            f"python -m flwr_caesar.tasks.pretrain: {' '.join(str(err).split())}",
        ) from err
    return model


def _libraries() -> tuple[ModuleType, ModuleType]:
    # transformers imports torchvision if it is there, which fails without this where
    # its operators were compiled for another torch.
    with suppress(ImportError):
        import_torchvision()
    try:
        import peft
        import transformers
    except ImportError as err:
        raise ConfigError("model.name", _INSTALL) from err
    return transformers, peft
