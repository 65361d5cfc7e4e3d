"""A whole model in bfloat16, by the pair of functions that Flower's records lack.

Plain Flower can neither take nor average bfloat16, so it is compared with the same app
whose devices train in bfloat16 and send float32.
"""

from collections.abc import Callable

import torch
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from torch import nn

from flwr_caesar.clients.torch_records import record_to_state, state_to_record

from .app import App, Score, reply_to
from .data import digits
from .torch_app import train_loop

X, Y, TEST_X, TEST_Y = (torch.as_tensor(part) for part in digits())


class Images(nn.Module):
    """Takes float32 images, as the training loop of these apps has them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.to(torch.bfloat16)).float()


def loaded(arrays: ArrayRecord) -> nn.Module:
    model = Images()
    model.load_state_dict(record_to_state(arrays))
    return model.to(torch.bfloat16)


def record_of(model: nn.Module, dtype: torch.dtype) -> ArrayRecord:
    return state_to_record({n: t.to(dtype) for n, t in model.state_dict().items()})


def app_in(dtype: torch.dtype) -> Callable[[list[Mod]], ClientApp]:
    def client_app(mods: list[Mod]) -> ClientApp:
        app = ClientApp(mods=mods)

        @app.train()
        def train(msg: Message, context: Context) -> Message:
            model = loaded(msg.content["arrays"])
            examples, _ = train_loop(model, digits(), msg, context, lr=0.3, steps=15)
            return reply_to(msg, record_of(model, dtype), examples=examples)

        return app

    return client_app


def initial_in(dtype: torch.dtype) -> Callable[[int], ArrayRecord]:
    def initial(seed: int) -> ArrayRecord:
        torch.manual_seed(seed)
        return record_of(Images(), dtype)

    return initial


def accuracy_of_record() -> Score:
    def accuracy(arrays: ArrayRecord) -> float:
        with torch.no_grad():
            guesses = loaded(arrays).eval()(TEST_X).argmax(1)
        return (guesses == TEST_Y).float().mean().item()

    return accuracy


def app_with(dtype: torch.dtype, **options: object) -> App:
    return App(
        "torch model in bfloat16",
        app_in(dtype),
        initial_in(dtype),
        accuracy_of_record(),
        rounds=4,
        **options,
    )


APP = app_with(torch.bfloat16, like=app_with(torch.float32))
