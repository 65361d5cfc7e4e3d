"""How fine uploads and published models are: what is left out of each, and when.

What a message leaves out goes along with a later one, so nothing is lost, and rounding
to nearest leaves out as much on one side as on the other, so that nothing is late on
the whole either. What remains is noise, and one share of it serves both ways: the
squared error of an upload is `ERROR` of its square, and that of a published model is
`ERROR` of the squared change since the model that devices mostly hold.

Nothing that devices say has a part in this, so none of them can change it.
"""

from __future__ import annotations

import math

from flwr_caesar.codec.quantisers.tensor_steps import generous_rate

from .by_size import by_size

ERROR = 0.2
"""Squared error of a message over the square of what it tells, of a large model."""

SMALL_ERROR = 0.05
"""The same of a small model (`by_size`): its bytes are not worth what they cost it."""


def error_of(elements: int) -> float:
    """Return the relative squared error that a message of a model may have.

    Parameters
    ----------
    elements : int
        Floating-point elements of the model.

    Returns
    -------
    float
        `SMALL_ERROR` to `ERROR`.
    """
    return by_size(elements, small=SMALL_ERROR, usual=ERROR)


def upload_error(elements: int) -> float:
    """Return the relative squared error that an upload may have.

    Parameters
    ----------
    elements : int
        Floating-point elements of the model. A small one has an upload's first
        kilobytes for nothing (`tensor_steps.generous_rate`).

    Returns
    -------
    float
        Above 0, at most `error_of` the model.
    """
    return float(min(error_of(elements), 4.0 ** -generous_rate(0.0, elements)))


def step_sigmas(elements: int) -> float:
    """Return the step of a published model, in deviations of the change.

    A step of `d` deviations has the relative squared error ``d^2 / 12``.

    Parameters
    ----------
    elements : int
        Floating-point elements of the model.
    """
    return math.sqrt(12 * error_of(elements))
