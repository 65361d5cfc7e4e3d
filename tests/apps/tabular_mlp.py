"""A small network on a table: about 5,000 parameters."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from torch import nn

from .app import App, reply_to
from .data import tumours
from .torch_app import accuracy_of, initial_of, load, train_loop


def build() -> nn.Module:
    return nn.Sequential(
        nn.Linear(30, 52),
        nn.ReLU(),
        nn.Linear(52, 52),
        nn.ReLU(),
        nn.Linear(52, 2),
    )


def client_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        model = load(build(), msg.content["arrays"])
        examples, _ = train_loop(model, tumours(), msg, context, lr=0.05)
        return reply_to(msg, model.state_dict(), examples=examples)

    return app


APP = App(
    "small network on a table (4,500 parameters)",
    client_app,
    initial_of(build),
    accuracy_of(build, tumours()),
    rounds=5,
    tested=169,
    fedcomloc_lr=0.05,
)
