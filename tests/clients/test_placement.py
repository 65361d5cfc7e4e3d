from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from flwr_caesar.clients import placement
from flwr_caesar.clients.placement import PlacementError, place


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_gpu_trouble", lambda: "torch sees no GPU")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_gpu_trouble", lambda: "")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Orin")


@pytest.fixture
def logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    return caplog


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_it_is_said_or_refused(logged: pytest.LogCaptureFixture) -> None:
    assert place({}) == "cpu"
    assert "trains on" not in logged.text
    assert place({"gpu": "preferred"}) == "cpu"
    assert "trains on the CPU: torch sees no GPU" in logged.text
    with pytest.raises(PlacementError, match="requires a GPU, and torch sees no GPU"):
        place({"gpu": "required"})


@pytest.mark.usefixtures("gpu")
def test_with_a_gpu_it_is_used_unless_it_never_is(
    logged: pytest.LogCaptureFixture,
) -> None:
    assert place({"gpu": "required"}) == place({}) == "cuda"
    assert "trains on Orin" in logged.text
    assert place({"gpu": "never"}) == "cpu"


@pytest.mark.usefixtures("gpu")
def test_threads_are_those_of_the_node_config_or_the_apps() -> None:
    place({}, threads=1)
    assert torch.get_num_threads() == 1
    place({"threads": 2}, threads=1)
    assert torch.get_num_threads() == 2
    place({"threads": 0}, threads=1)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    "config", [{"gpu": "yes"}, {"gpu": True}, {"threads": "4"}, {"threads": -1}]
)
def test_values_that_are_none_are_refused(config: dict[str, bool | int | str]) -> None:
    with pytest.raises(PlacementError, match="write"):
        place(config)


def test_a_gpu_that_fails_at_its_first_kernel_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(PlacementError, match=r"no kernel image is available\)"):
        place({"gpu": "required"})
