"""Flower's DP strategies inside ours, and around them, which is the wrong order."""

from collections.abc import Callable

from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    Strategy,
)

from .app import App, Wrap
from .numpy_app import accuracy, initial_arrays, plain_app

ORDER = "outermost|inside"


def fixed(inner: Strategy) -> Strategy:
    return DifferentialPrivacyServerSideFixedClipping(
        inner, noise_multiplier=1e-4, clipping_norm=100.0, num_sampled_clients=3
    )


def adaptive(inner: Strategy) -> Strategy:
    return DifferentialPrivacyServerSideAdaptiveClipping(
        inner,
        noise_multiplier=1e-4,
        num_sampled_clients=3,
        initial_clipping_norm=100.0,
        clipped_count_stddev=0.1,
    )


def on_devices(inner: Strategy) -> Strategy:
    return DifferentialPrivacyClientSideFixedClipping(
        inner, noise_multiplier=1e-4, clipping_norm=100.0, num_sampled_clients=3
    )


def clipping_app(mods: list[Mod]) -> ClientApp:
    return plain_app([*mods, fixedclipping_mod])


def app_of(
    title: str, made_by: Callable[[Wrap], Strategy], order: str = "", **options: object
) -> App:
    return App(
        title,
        options.get("client_app", plain_app),
        initial_arrays,
        accuracy,
        made_by,
        refused={"*": order} if order else {},
    )


def base() -> FedAvg:
    return FedAvg(fraction_evaluate=0.0)


APPS = [
    app_of("DP on the server, inside", lambda wrap: wrap(fixed(base()))),
    app_of("adaptive DP on the server, inside", lambda wrap: wrap(adaptive(base()))),
    app_of("DP on the server, outside", lambda wrap: fixed(wrap(base())), ORDER),
    app_of(
        "DP on devices, outside",
        lambda wrap: on_devices(wrap(base())),
        ORDER,
        client_app=clipping_app,
    ),
]
