"""What must be true of an app under a strategy, and whether it is."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np

from flwr_caesar.tasks.vision import import_torchvision

from .app import App
from .grid import DOWN, CountingGrid
from .noise import tolerance
from .run import Outcome, plainly, run

# Bytes that a message of ours may be larger than Flower's, as it is for models of some
# ten numbers and for replies that hold metrics alone. Of these 165 are Flower's: it
# names each record by its SHA-256 in two places.
ALLOWANCE = 200


@dataclass
class Verdict:
    """What an app is like under a strategy, beside plain Flower.

    Parameters
    ----------
    difference : float
        Of the last model's score, in the mean of the seeds.
    allowed : float
        How much lower it may be (`tests.apps.noise`).
    short : str
        Why it cannot be as good, by the method's nature; empty if it has to be.
    ratio : float
        Bytes of all messages, all records counted, over plain Flower's.
    sentence : str
        With which it was refused; empty if it was not.
    faults : list of str
        What is not as it must be.
    """

    difference: float = 0.0
    ratio: float = 0.0
    allowed: float = 0.0
    short: str = ""
    sentence: str = ""
    faults: list[str] = field(default_factory=list)


def missing(app: App) -> str:
    """Return why an app cannot be run here; empty if it can."""
    if app.needs and find_spec("torchvision"):
        # Libraries import it, which fails beside a CPU build of torch unless this did.
        import_torchvision()
    for package in app.needs:
        try:
            importlib.import_module(package)
        except Exception as err:
            why = str(err).splitlines()[0]
            return f"{app.title}: {package} cannot be imported ({why})"
    return app.unsupported and f"{app.title}: {app.unsupported}"


def judge(app: App, name: str) -> Verdict:
    """Run an app under a strategy and compare it with plain Flower."""
    return _refused(app, name) if app.refusal(name) else _working(app, name)


def _working(app: App, name: str) -> Verdict:
    seeds = range(app.seeds)
    plain = [plainly(app, seed) for seed in seeds]
    try:
        ours = [run(app, name, seed) for seed in seeds]
    except Exception as err:
        return Verdict(faults=[f"{type(err).__name__}: {err}"])
    verdict = Verdict(
        _mean(ours, -1) - _mean(plain, -1),
        sum(o.nbytes() for o in ours) / sum(p.nbytes() for p in plain),
        tolerance(app),
        app.short.get(name, ""),
    )
    faults = verdict.faults
    learned = _mean(ours, -1) - _mean(ours, 0)
    if verdict.short:
        # As good it cannot be, but it has to learn.
        if not learned >= 0.5 * (_mean(plain, -1) - _mean(plain, 0)):
            faults.append(f"the score rises by {learned:.3f} only")
    elif not verdict.difference >= -verdict.allowed:
        faults.append(
            f"the last model scores {verdict.difference:+.3f}, and plain Flower "
            f"varies by {verdict.allowed:.3f}"
        )
    begun = _mean(ours, 0) - _mean(plain, 0)
    if not begun >= -verdict.allowed:
        faults.append(f"the first model scores {begun:+.3f}")
    if not all(np.isfinite(own.scores).all() for own in ours):
        faults.append("a score is not finite")
    for own, other in zip(ours, plain, strict=True):
        if own.observed != other.observed:
            faults.append(f"observed {own.observed}, in Flower {other.observed}")
        if own.grid.errors != other.grid.errors:
            faults.append(f"devices fail: {_counted(own.grid.errors)}")
        if own.dropped and not app.fails:
            faults.append(f"replies are dropped: {_counted(own.dropped)}")
        faults += [o for o in oversized(own, other) if o not in faults]
        most = other.nbytes() + ALLOWANCE * other.grid.messages()
        # FedComLoc sends the model once more, to settle a round.
        if name != "FedComLoc" and own.nbytes() > most:
            faults.append(f"{own.nbytes() - most} bytes too many")
    return verdict


def _refused(app: App, name: str) -> Verdict:
    grids: list[CountingGrid] = []
    try:
        run(app, name, watch=grids.append)
    except Exception as err:
        verdict = Verdict(sentence=f"{err}")
    else:
        return Verdict(faults=["is not refused"])
    if not re.search(app.refusal(name), verdict.sentence):
        verdict.faults.append(f"is refused with: {verdict.sentence}")
    if grids and len(grids[0].sizes["train", DOWN]) > app.nodes:
        verdict.faults.append("is not refused before the second round")
    return verdict


def oversized(ours: Outcome, plain: Outcome) -> list[str]:
    """Return which messages exceed Flower's by more than they may.

    Messages of a type that plain Flower does not send, such as FedComLoc's that settle
    a round, are compared with the largest in their direction.
    """
    found = []
    for (phase, way), sizes in ours.grid.sizes.items():
        alike = plain.grid.sizes.get((phase, way)) or [
            size
            for (_, direction), others in plain.grid.sizes.items()
            for size in others
            if direction == way
        ]
        over = max(sizes) - max(alike)
        if over > ALLOWANCE:
            found.append(f"a message ({phase}, {way}) is {over} bytes larger")
    return found


def _mean(outcomes: list[Outcome], which: int) -> float:
    return float(np.mean([outcome.scores[which] for outcome in outcomes]))


def _counted(reasons: Iterable[str]) -> dict[str, int]:
    return dict(Counter(reason[:120] for reason in reasons))
