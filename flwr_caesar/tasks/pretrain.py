"""Trains the Llama that `llama_lora` adapts, on half of the plays.

    python -m flwr_caesar.tasks.pretrain

Once on a machine, some minutes on one core; the file it names can be copied to others.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_module
from safetensors.torch import save_file
from torch import nn

from . import plays
from .errors import ConfigError
from .lora import base_path, new_llama, shape_of

STEPS, BATCH, LEARNING_RATE = 500, 32, 3e-3
_SEED = 38


def pretrain(shape: Mapping[str, int], *, steps: int = STEPS) -> Path:
    """Train a Llama on the plays that `data.plays=odd` leaves out, and store it.

    AdamW with a warm-up and a cosine, on windows at random places; on one thread, so
    that equal machines and versions of torch come to equal bits.

    Returns
    -------
    Path
        The file, in bfloat16. It appears when it is whole.

    Raises
    ------
    ConfigError
        If a package or the plays are missing.
    """
    torch.set_num_threads(1)
    torch.manual_seed(_SEED)
    model = new_llama(shape)
    codes = plays.text_of("even")
    rng = np.random.default_rng(_SEED)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    for step in range(steps):
        warm = min(1.0, (step + 1) / 50)
        rate = LEARNING_RATE * warm * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = rng.integers(0, len(codes) - plays.LENGTH, BATCH)
        windows = codes[starts[:, np.newaxis] + np.arange(plays.LENGTH + 1)]
        x = torch.from_numpy(windows.astype(np.int64))
        logits = model(input_ids=x[:, :-1], use_cache=False).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 50 == 49 or step + 1 == steps:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}", flush=True)
    return _store(model, base_path(shape))


def _store(model: nn.Module, path: Path) -> Path:
    state = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # the embedding, once more
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(handle)
    try:
        save_file(state, name)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def main(overrides: Sequence[str]) -> None:
    """Train what ``experiment=caesar_lora`` with these overrides needs."""
    with initialize_config_module("flwr_caesar.conf", version_base=None):
        config = compose("config", ["experiment=caesar_lora", *overrides])
        print(f"stored at {pretrain(shape_of(config.model))}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ConfigError as error:
        sys.exit(str(error))
