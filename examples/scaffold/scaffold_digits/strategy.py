"""SCAFFOLD, as a strategy of one's own (Karimireddy et al., arXiv:1910.06378)."""

from collections.abc import Iterable, Mapping

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor


class Scaffold(FedAvg):
    """FedAvg, and control variates that correct each device's drift.

    Parameters
    ----------
    state : mapping of str to Tensor
        The model's; the control variates begin as zeros like these.
    fraction_train : float
        Which part of the devices trains in a round.
    """

    def __init__(self, state: Mapping[str, Tensor], *, fraction_train: float) -> None:
        super().__init__(fraction_train=fraction_train, fraction_evaluate=0.0)
        self.control = {name: torch.zeros_like(t) for name, t in state.items()}
        self.devices = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the control variates beside the model."""
        self.devices = len(list(grid.get_node_ids()))
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            message.content["control"] = ArrayRecord(self.control)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move the control variates, and average the models as FedAvg does."""
        replies = [reply for reply in replies if reply.has_content()]
        for reply in replies:
            moved = reply.content.pop("control-delta").to_torch_state_dict()
            for name, delta in moved.items():
                self.control[name] += delta / self.devices
        return super().aggregate_train(server_round, replies)
