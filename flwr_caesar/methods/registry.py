"""Methods by name: ours, and third parties' through an entry-point group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from importlib.metadata import entry_points
from typing import Any

from flwr_caesar.frozen import frozen

from .halves import load

ENTRY_POINT_GROUP = "flwr_caesar.methods"


@frozen
class MethodSpec:
    """Where the halves of a method are, and how the fault harness runs it.

    Objects are named as ``"module:attribute"``, so that finding a method imports
    neither half: a server may have no torch, and a device pays for each import.

    Parameters
    ----------
    strategy : str
        A constructor that takes an inner strategy, keyword settings and
        `WrapperOptions`, and returns a `CompressedStrategy`.
    settings : mapping
        Keyword settings that the name stands for, if it is a variant of a method.
    device : str
        A subclass of `flwr_caesar.clients.method.DeviceMethod`; empty if devices need
        nothing besides the codecs. Plans name it by the method's name.
    conf : str
        A package with Hydra groups, such as ``strategy/NAME.yaml``; empty for none.
    cases : mapping of str to mapping
        Keyword settings by case name with which ``flwr-caesar faults`` runs it on a
        model of about a thousand weights. The case ``C`` of a method ``M`` is called
        ``M_C`` there, and ``M`` if it has the method's name.
    """

    strategy: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""
    conf: str = ""
    cases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def load_strategy(self) -> Any:
        """Import and return the strategy's constructor."""
        return load(self.strategy)


_STRATEGIES = "flwr_caesar.strategies:"
_CONTROL = {"lr": 0.05, "p": 0.25, "density": 0.3, "exact_below": 64}
_OURS = {
    "fedavg": MethodSpec(_STRATEGIES + "Uncompressed"),
    "topk": MethodSpec(
        _STRATEGIES + "TopK",
        cases={
            "topk": {"density": 0.1},
            "lattice": {"density": 0.1, "downlink": "lattice"},
        },
    ),
    "sign_ef": MethodSpec(_STRATEGIES + "SignEF", cases={"sign_ef": {}}),
    "cafe": MethodSpec(
        _STRATEGIES + "CAFe",
        cases={
            "cafe": {"density": 0.1},
            "quantized": {"compressor": "quantized", "density": 0.3},
            "lattice": {"density": 0.1, "downlink": "lattice"},
        },
    ),
    "qsgd": MethodSpec(
        _STRATEGIES + "QSGD",
        cases={"qsgd": {}, "rounded": {"downlink": "rounded"}},
    ),
    "fedcomloc": MethodSpec(
        _STRATEGIES + "FedComLoc",
        cases={
            "fedcomloc": _CONTROL,
            "global": {**_CONTROL, "variant": "global"},
            "local": {**_CONTROL, "variant": "local"},
        },
    ),
    "fedcomloc_local": MethodSpec(
        _STRATEGIES + "FedComLoc", settings={"variant": "local"}
    ),
    "fedcomloc_global": MethodSpec(
        _STRATEGIES + "FedComLoc", settings={"variant": "global"}
    ),
    "fedcomloc_global_paper": MethodSpec(
        _STRATEGIES + "FedComLoc", settings={"variant": "global", "feedback": 0.0}
    ),
    "scaffnew": MethodSpec(_STRATEGIES + "FedComLoc"),
    "sparse_fedavg": MethodSpec(_STRATEGIES + "FedComLoc"),
    "caesar": MethodSpec(
        _STRATEGIES + "Caesar",
        cases={"caesar": {"first_bits": 0, "shared_start": True}},
    ),
    "caesar_paper": MethodSpec(
        _STRATEGIES + "Caesar",
        cases={"caesar_paper": {"codec": "paper", "exact_below": 64}},
    ),
    "caesar_whole": MethodSpec(_STRATEGIES + "Caesar"),
    "uniform": MethodSpec(_STRATEGIES + "Caesar"),
    "pruning": MethodSpec(
        _STRATEGIES + "MagnitudePruning", cases={"pruning": {"prune_rate": 0.5}}
    ),
    "pruning_paper": MethodSpec(
        _STRATEGIES + "MagnitudePruning",
        settings={"exclude_1d": False, "relative": False},
    ),
    "error_bounded": MethodSpec(
        _STRATEGIES + "ErrorBounded",
        cases={
            "error_bounded": {"rel": 0.01, "exact_below": 64},
            "feedback": {"rel": 0.05, "exact_below": 64, "error_feedback": True},
        },
    ),
    "error_bounded_paper": MethodSpec(
        _STRATEGIES + "ErrorBounded", settings={"predictor": "paper"}
    ),
    "correlation_aware": MethodSpec(
        _STRATEGIES + "CorrelationAware",
        cases={"correlation_aware": {"density": 0.05, "history": True}},
    ),
    "blog_recipe": MethodSpec(
        _STRATEGIES + "CorrelationAware",
        settings={"density": 0.01, "bits": 8, "allocation": "variance"},
    ),
}


def list_methods() -> list[str]:
    """Return the names of all installed methods, ours first."""
    theirs = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return [*_OURS, *sorted(theirs - _OURS.keys())]


def get_method(name: str) -> MethodSpec:
    """Return the method of a name.

    Raises
    ------
    LookupError
        If there is none, or it does not load.
    """
    if name in _OURS:
        return _OURS[name]
    points = entry_points(group=ENTRY_POINT_GROUP, name=name)
    if not points:
        raise LookupError(
            f"no strategy {name!r}; there are: {', '.join(list_methods())}"
        )
    try:
        spec = next(iter(points)).load()
    except (ImportError, AttributeError) as err:
        raise LookupError(f"strategy {name!r} does not load: {err}") from err
    if not isinstance(spec, MethodSpec):
        raise LookupError(f"the entry point of strategy {name!r} is no MethodSpec")
    return spec
