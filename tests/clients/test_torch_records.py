"""State dicts through Flower's records and back, to the bit."""

from __future__ import annotations

import pytest
import torch
from flwr.app import ArrayRecord

from flwr_caesar.clients.torch_records import record_to_state, state_to_record
from flwr_caesar.runner.inline import through_the_wire

DTYPES = [
    torch.bfloat16,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.bool,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (0, 2)])
def test_tensors_come_back_with_dtype_shape_and_bits(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = (10 * torch.randn(shape)).to(dtype)
    record = through_the_wire(state_to_record({"a.weight": tensor}))
    back = record_to_state(record)
    assert list(back) == ["a.weight"]
    assert back["a.weight"].dtype == dtype
    assert back["a.weight"].shape == tensor.shape
    assert torch.equal(back["a.weight"], tensor)
    back["a.weight"].zero_()  # and is writable


def test_infinities_and_transposed_tensors_of_bfloat16_survive() -> None:
    tensor = torch.full((8, 4), -torch.inf).triu(1).to(torch.bfloat16).T
    back = record_to_state(through_the_wire(state_to_record({"mask": tensor})))
    assert torch.equal(back["mask"], tensor)


def test_a_record_that_flower_made_is_read_too() -> None:
    state = torch.nn.Linear(3, 2).state_dict()
    back = record_to_state(ArrayRecord(state))
    assert all(torch.equal(back[name], state[name]) for name in state)
