"""One colour and one line for each strategy, in every picture and page."""

from __future__ import annotations

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
    "fedcomloc": ("#009E73", _SOLID),
    "scaffnew": ("#009E73", _DASHED),
    "sparse_fedavg": ("#009E73", _DOTTED),
    "pruning": ("#CC79A7", _SOLID),
    "error_bounded": ("#E69F00", _SOLID),
    "correlation_aware": ("#882255", _MIXED),
}
_OTHERS = ("#56B4E9", "#332288", "#44AA99", "#999933")
_LINES = (_SOLID, _DASHED, _DOTTED, _MIXED)
_NAMES = {
    "Caesar": "caesar",
    "Uncompressed": "fedavg",
    "TopK": "topk",
    "FedComLoc": "fedcomloc",
    "MagnitudePruning": "pruning",
    "ErrorBounded": "error_bounded",
    "CorrelationAware": "correlation_aware",
}


def styles(names: list[str]) -> list[tuple[str, str]]:
    """Return colour and line of each of the labels of a picture.

    Parameters
    ----------
    names : list of str
        A strategy's name, or a class's, and what was set: ``"topk density=0.1"``.
        Labels of one strategy share its colour and differ in their lines.
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
        if own in taken:
            line = next((o for o in _LINES if (color, o) not in taken), line)
        taken.add((color, line))
        found.append((color, line))
    return found
