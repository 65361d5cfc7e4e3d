"""What the strategies ask of devices, one in each conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flwr_caesar.codec import get_codec
from flwr_caesar.strategies.fitted import Fitted, Fitting
from flwr_caesar.strategies.method import ServerMethod
from flwr_caesar.strategies.phase import Device, DevicePlan
from flwr_caesar.strategies.pruning import PruningMethod

from .conversation_server import Arrays, dense
from .conversations_of_one_device import LATTICE, TOPK, caesar, topk
from .record_conversations import Scenario, Talk, first_model

PRUNE = {"id": "prune", "prune_rate": 0.5, "exclude_1d": True, "exact_below": 12}


def top_k(folder: Path) -> Talk:
    method = ServerMethod(
        upload=get_codec({**TOPK, "values": "float32"}), error_feedback=True
    )
    talk = Talk("top-k", "TopK with float32 values.", method, folder)
    for _ in range(4):
        talk.round({1: "a", 2: "b"})
    return talk


def top_k_far(folder: Path) -> Talk:
    """Values beyond float16, and far below it."""
    talk = Talk(
        "top-k-far",
        "TopK with float16 values of tensors that are beyond its range or far below.",
        topk(),
        folder,
    )
    for factor in (2.0**20, 2.0**-24):
        content = talk.server.ask([1])[1]
        trained = talk.trained()
        trained["fc.weight"] = talk.server.held["fc.weight"] + np.float32(factor) * (
            trained["fc.weight"] - talk.server.held["fc.weight"]
        )
        reply = talk.ask("a", content, trained=trained)
        assert reply is not None
        assert talk.server.hear(1, reply).counts
        talk.server.close()
    talk.round({1: "a"})
    return talk


def dense_exact(folder: Path) -> Talk:
    talk = Talk("dense-exact", "Uploads by the codec dense.", dense(), folder)
    talk.round({1: "a"})
    talk.round({1: "a"}, lose=(1,))
    talk.round({1: "a"})
    talk.round({1: "a"}, train=False)
    return talk


def _pruning(**more: object) -> PruningMethod:
    codec = get_codec({**PRUNE, **more})
    return PruningMethod(lambda _: codec, lambda _: codec)


def prune(folder: Path) -> Talk:
    talk = Talk(
        "prune",
        "MagnitudePruning: pruned models both ways, no residual, a reply lost.",
        _pruning(),
        folder,
    )
    talk.round({1: "a", 2: "b"})
    talk.round({1: "a", 2: "b"})
    talk.round({1: "a"}, lose=(1,))
    talk.round({1: "a"})
    return talk


def prune_levels(folder: Path) -> Talk:
    talk = Talk(
        "prune-levels",
        "MagnitudePruning with levels of 4 bits, powers of two.",
        _pruning(bits=4, levels="power_of_two", relative=True),
        folder,
    )
    talk.round({1: "a"})
    talk.round({1: "a"})
    return talk


def mixed(folder: Path) -> Talk:
    talk = Talk(
        "mixed",
        "Devices of one run that send by lattice, topk, dense and prune.",
        caesar(),
        folder,
    )
    configs = (LATTICE, TOPK, {"id": "dense"}, PRUNE)
    plans = {
        n: DevicePlan(get_codec(config)) for n, config in enumerate(configs, start=1)
    }
    stores = {1: "lattice", 2: "topk", 3: "dense", 4: "prune"}
    for _ in range(3):
        talk.round(stores, plans=plans)
    # Each by another codec than before: a residual is of no codec.
    turned = {n: plans[n % 4 + 1] for n in plans}
    talk.round(stores, plans=turned)
    return talk


def by_rate(folder: Path) -> Talk:
    method = caesar()
    method.upload = get_codec({**LATTICE, "step": 0.0, "rate": 2.5})
    talk = Talk(
        "by-rate",
        "Uploads by a rate: the writer chooses the step, so a replay takes the frame "
        "that was recorded.",
        method,
        folder,
    )
    for _ in range(3):
        talk.round({1: "a"})
    return talk


def lattice_by_error(folder: Path) -> Talk:
    method = caesar()
    method.upload = get_codec({**LATTICE, "step": 0.0, "nmse": 0.05})
    talk = Talk(
        "lattice-by-error",
        "Uploads by an error: the writer chooses, as in by-rate.",
        method,
        folder,
    )
    talk.round({1: "a"})
    talk.round({1: "a"})
    return talk


def _with_backbone() -> Arrays:
    rng = np.random.default_rng(3)
    backbone = rng.normal(0, 0.1, (24, 24)).astype(np.float32)
    return {"backbone": backbone, **first_model()}


def _keeping(talk: Talk) -> Arrays:
    trained = talk.trained()
    trained["backbone"] = talk.server.held["backbone"]
    return trained


def _frozen(name: str, about: str, method: ServerMethod, folder: Path) -> Talk:
    talk = Talk(name, about, method, folder, model=_with_backbone())
    for _ in range(3):
        content = talk.server.ask([1])[1]
        reply = talk.ask("a", content, trained=_keeping(talk))
        assert reply is not None
        assert talk.server.hear(1, reply).counts
        talk.server.close()
    talk.round({1: "a"}, train=False)
    return talk


def frozen(folder: Path) -> Talk:
    return _frozen(
        "frozen",
        "A frozen backbone: it goes down once, then only the tensors that changed.",
        topk(),
        folder,
    )


def frozen_models(folder: Path) -> Talk:
    return _frozen(
        "frozen-models",
        "A frozen backbone where models go up: only the tensors that changed.",
        _pruning(prune_rate=0.0),
        folder,
    )


def raised(folder: Path) -> Talk:
    talk = Talk(
        "raised",
        "A variance that training makes small: the frame names what is to be raised.",
        topk(),
        folder,
    )
    method = talk.server.method
    method.upload = get_codec({**LATTICE, "step": 0.5})
    for scale in (0.01, 0.02, 0.5):
        content = talk.server.ask([1])[1]
        trained = talk.trained()
        trained["norm.variance"] = talk.server.held["norm.variance"] * np.float32(scale)
        reply = talk.ask("a", content, trained=trained)
        assert reply is not None
        assert talk.server.hear(1, reply).counts
        talk.server.close()
    return talk


def masked(folder: Path) -> Talk:
    model = first_model()
    model["fc.bias"][2:5] = -np.inf
    model["conv.weight"][0, 0, 0, 0] = np.nan
    talk = Talk(
        "masked",
        "A model with elements that are no numbers: they stay what they are.",
        topk(),
        folder,
        model=model,
    )
    for _ in range(3):
        talk.round({1: "a"})
    return talk


PHONE = {"codecs": ["dense", "lattice", "lattice_model", "prune", "topk"]}
MODEST = {"codecs": ["dense"], "parts": ["recovery"]}


def abilities(folder: Path) -> Talk:
    talk = Talk(
        "abilities",
        "What devices can: said until an upload that said so is applied, under "
        "a new node id, and when asked for what they lack.",
        caesar(),
        folder,
        can={"phone": PHONE, "modest": MODEST},
    )
    stores = {1: "phone", 2: "modest", 3: "jetson"}
    talk.round(stores, lose=(1,))
    talk.round(stores, train=False)
    talk.round(stores)
    talk.round(stores, lose=(1,))
    talk.round(stores)
    talk.round(stores)
    # At another node the server does not know it.
    talk.round({4: "phone", 2: "modest"})
    talk.round({4: "phone"})
    signs = {4: DevicePlan(get_codec({"id": "signs", "exact_below": 4}))}
    talk.server._fitting = _Careless(talk.server.method)
    talk.round({4: "phone"}, plans=signs)
    part = {4: DevicePlan(get_codec(LATTICE), part="bound_check")}
    talk.round({4: "phone"}, plans=part)
    content = talk.server.ask([4], plans=signs)[4]
    talk.ask("phone", content)
    talk.ask("phone", content)
    talk.round({4: "phone"})
    return talk


class _Careless(Fitting):
    """A server that asks devices for what they lack."""

    def fit(
        self, device: Device, plan: DevicePlan, layout: Any, published: Any
    ) -> Fitted:
        return Fitted(device, plan)


SCENARIOS: tuple[Scenario, ...] = (
    top_k,
    top_k_far,
    dense_exact,
    prune,
    prune_levels,
    mixed,
    by_rate,
    lattice_by_error,
    frozen,
    frozen_models,
    raised,
    masked,
    abilities,
)
