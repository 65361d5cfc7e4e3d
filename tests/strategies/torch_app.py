"""A Flower app as the quickstart writes it: FedAvg, torch, no knowledge of us."""

from __future__ import annotations

import functools

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy
from sklearn.datasets import load_digits

torch.set_num_threads(1)

# --- client_app.py -----------------------------------------------------------


def client_app(mods: list | None = None) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        model = build_model()
        model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
        x, y = partition(context.node_config["partition-id"], 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        content = RecordDict(
            {
                "arrays": ArrayRecord(model.state_dict()),
                "metrics": MetricRecord(
                    {"train_loss": loss.item(), "num-examples": len(x)}
                ),
            }
        )
        return Message(content=content, reply_to=msg)

    @app.evaluate()
    def evaluate(msg: Message, context: Context) -> Message:
        model = build_model()
        model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
        x, y = partition(context.node_config["partition-id"], 4)
        accuracy = (model(x).argmax(1) == y).float().mean().item()
        metrics = MetricRecord({"accuracy": accuracy, "num-examples": len(x)})
        return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)

    return app


# --- server_app.py -----------------------------------------------------------


def serve(grid: Grid, strategy: Strategy | None = None, rounds: int = 15) -> float:
    strategy = strategy or FedAvg()
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(build_model().state_dict()),
        num_rounds=rounds,
    )
    return result.evaluate_metrics_clientapp[rounds]["accuracy"]


# --- task.py -----------------------------------------------------------------


def build_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(64, 64),
        torch.nn.BatchNorm1d(64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )


@functools.cache
def partition(index: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    digits = load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float32)
    return x[index::count], torch.tensor(digits.target)[index::count]
