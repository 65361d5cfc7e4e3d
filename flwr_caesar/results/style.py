"""One colour and one line for each strategy, in every picture and page."""

from __future__ import annotations

from collections.abc import Callable

# Okabe and Ito's palette, which the colour-blind can tell apart, without its yellow,
# which nobody sees on white; the last one is Tol's. Lines differ too, for print.
_SOLID, _DASHED, _DOTTED, _MIXED = "-", "--", ":", "-."
STYLES: dict[str, tuple[str, str]] = {
    "caesar": ("#0072B2", _SOLID),
    "caesar_whole": ("#0072B2", _DASHED),
    "caesar_paper": ("#0072B2", _DOTTED),
    "uniform": ("#0072B2", _MIXED),
    "fedavg": ("#000000", _DASHED),
    "topk": ("#D55E00", _SOLID),
    "qsgd": ("#D55E00", _DASHED),
    "fedcomloc": ("#009E73", _SOLID),
    "scaffnew": ("#009E73", _DASHED),
    "sparse_fedavg": ("#009E73", _DOTTED),
    "fedcomloc_local": ("#009E73", _MIXED),
    "fedcomloc_global": ("#004F3A", _SOLID),
    "fedcomloc_global_paper": ("#004F3A", _DASHED),
    "pruning": ("#CC79A7", _SOLID),
    "pruning_paper": ("#CC79A7", _DASHED),
    "error_bounded": ("#E69F00", _SOLID),
    "error_bounded_paper": ("#E69F00", _DASHED),
    "blog_recipe": ("#E69F00", _DOTTED),
    "correlation_aware": ("#882255", _MIXED),
    "cafe": ("#56B4E9", _DASHED),
    "sign_ef": ("#332288", _DOTTED),
}
_OTHERS = ("#44AA99", "#999933", "#AA4499", "#88CCEE")
_LINES = (_SOLID, _DASHED, _DOTTED, _MIXED)
_NAMES = {
    "Caesar": "caesar",
    "Uncompressed": "fedavg",
    "TopK": "topk",
    "FedComLoc": "fedcomloc",
    "MagnitudePruning": "pruning",
    "ErrorBounded": "error_bounded",
    "CorrelationAware": "correlation_aware",
    "CAFe": "cafe",
    "SignEF": "sign_ef",
    "QSGD": "qsgd",
}


def _shades(color: str) -> tuple[str, str, str]:
    """Return a lighter and two darker shades of a colour."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]

    def mixed(part: float, other: int) -> str:
        return "#" + "".join(f"{round(p + part * (other - p)):02X}" for p in parts)

    return mixed(0.45, 255), mixed(0.5, 0), mixed(0.25, 255)


def _unlike(taken: set[tuple[str, str]]) -> Callable[[tuple[str, str]], int]:
    """Return how often a look's shade and its line are taken, for sorting."""
    return lambda look: sum((look[0] == c) + (look[1] == o) for c, o in taken)


def styles(names: list[str]) -> list[tuple[str, str]]:
    """Return colour and line of each of the labels of a picture.

    Parameters
    ----------
    names : list of str
        A strategy's name, or a class's, and what was set: ``"topk density=0.1"``.
        Labels of one strategy have shades of its colour, and unlike lines.
    """
    taken: set[tuple[str, str]] = set()
    found = []
    strangers: dict[str, str] = {}
    for name in names:
        first = name.partition(" ")[0]
        own = STYLES.get(_NAMES.get(first, first))
        if own is None:
            color = strangers.setdefault(first, _OTHERS[len(strangers) % len(_OTHERS)])
            own = (color, _SOLID)
        color, line = own
        shades = [(shade, o) for shade in (color, *_shades(color)) for o in _LINES]
        if own in taken:
            # Next to each other in unlike shades and lines.
            color, line = next(
                (o for o in sorted(shades, key=_unlike(taken)) if o not in taken), own
            )
        taken.add((color, line))
        found.append((color, line))
    return found
