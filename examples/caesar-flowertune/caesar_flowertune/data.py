"""Texts: Python's own manual, which comes with Python, by topic."""

from pydoc_data.topics import topics

import torch
from transformers import PreTrainedTokenizerBase

LENGTH = 64
TESTED = 64


def _texts() -> list[str]:
    longest = sorted(topics.values(), key=lambda text: (-len(text), text))
    return longest[:40]


def pretraining_text() -> str:
    """Return every other topic: what the built-in model is trained on."""
    return "\n".join(_texts()[1::2])


def load_partition(partition_id: int, num_partitions: int) -> str:
    """Return what one device has: some of the other topics."""
    return "\n".join(_texts()[::2][partition_id::num_partitions])


def load_file(path: str) -> str:
    """Return what a real device has: a text file."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def windows(text: str, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return a text as int64 tokens, ``(n, LENGTH)``; what is left over is dropped."""
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    count = len(tokens) // LENGTH
    return torch.tensor(tokens[: count * LENGTH]).reshape(count, LENGTH)


def split(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return windows to train on, and every tenth to test on."""
    tested = torch.arange(len(x)) % 10 == 9
    return x[~tested], x[tested]


def test_windows(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return windows of all devices that none of them trains on."""
    parts = [split(windows(text, tokenizer))[1] for text in _texts()[::2]]
    x = torch.cat(parts)
    return x[:: max(1, len(x) // TESTED)]
