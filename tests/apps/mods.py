"""Flower's own mods before and behind ours, and ours forgotten."""

from collections.abc import Callable

from flwr.clientapp import ClientApp
from flwr.clientapp.mod import (
    LocalDpMod,
    arrays_size_mod,
    fixedclipping_mod,
    message_size_mod,
)
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    FedAvg,
    Strategy,
)

from .app import App, Wrap, fed_avg
from .numpy_app import accuracy, initial_arrays, plain_app

PRIVACY = LocalDpMod(clipping_norm=100.0, sensitivity=1e-4, epsilon=10.0, delta=1e-5)


def sizes_before(mods: list[Mod]) -> ClientApp:
    return plain_app([message_size_mod, arrays_size_mod, *mods])


def sizes_behind(mods: list[Mod]) -> ClientApp:
    return plain_app([*mods, message_size_mod, arrays_size_mod])


def privacy_before(mods: list[Mod]) -> ClientApp:
    return plain_app([PRIVACY, *mods])


def privacy_behind(mods: list[Mod]) -> ClientApp:
    return plain_app([*mods, PRIVACY])


def clipping_behind(mods: list[Mod]) -> ClientApp:
    return plain_app([*mods, fixedclipping_mod])


def forgotten(mods: list[Mod]) -> ClientApp:
    return plain_app([])


def clipped(wrap: Wrap) -> Strategy:
    inner = FedAvg(fraction_evaluate=0.0)
    return wrap(
        DifferentialPrivacyClientSideFixedClipping(
            inner, noise_multiplier=1e-4, clipping_norm=100.0, num_sampled_clients=3
        )
    )


def app_of(
    title: str,
    client_app: Callable[[list[Mod]], ClientApp],
    made_by: Callable[[Wrap], Strategy] = fed_avg,
    **refused: str,
) -> App:
    return App(
        title,
        client_app,
        initial_arrays,
        accuracy,
        made_by,
        refused={name.replace("_", " "): why for name, why in refused.items()},
    )


FEEDBACK = "pass error_feedback=False, or clip on the server"
MODELS = "compresses models, not the updates .* clip on the server"

APPS = [
    app_of("mods: message_size_mod, ours", sizes_before),
    app_of("mods: ours, message_size_mod", sizes_behind),
    app_of("mods: ours, LocalDpMod", privacy_behind),
    app_of(
        "mods: LocalDpMod, ours",
        privacy_before,
        **{"*": "first", "Uncompressed": ""},
    ),
    app_of(
        "mods: ours, fixedclipping_mod; clipping on devices",
        clipping_behind,
        clipped,
        Caesar=FEEDBACK,
        TopK=FEEDBACK,
        CorrelationAware=FEEDBACK,
        MagnitudePruning=MODELS,
    ),
    app_of("no mod", forgotten, **{"*": "compression_mod", "Uncompressed": ""}),
]
