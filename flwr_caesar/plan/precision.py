"""How fine uploads and published models are: what is left out of each, and when.

What a message leaves out goes along with a later one, so nothing is lost, and rounding
to nearest leaves out as much on one side as on the other, so that nothing is late on
the whole either. What remains is noise, and a share of it is allowed each way: the
squared error of an upload is `UPLOAD_ERROR` of its square, and that of a published
model is at most `DOWNLOAD_ERROR` of the squared change since the model that devices
mostly hold, and about half of that on average, as steps are powers of two. An upload is
finer: what its products do not tell of it is small and mostly rounded to 0, which is
late, and it costs few bytes.

Nothing that devices say has a part in this but which model they hold, of which the
median of many counts.
"""

from __future__ import annotations

import math

from flwr_caesar.codec.quantisers.tensor_steps import generous_rate

from .by_size import by_size

UPLOAD_ERROR = 0.1
"""Squared error of an upload over its square, of a large model."""

DOWNLOAD_ERROR = 2 / 3
"""Most squared error of a published model over the square of what devices lack."""

SMALL_UPLOAD_ERROR, SMALL_DOWNLOAD_ERROR = 0.05, 0.1
"""Those of a small model (`by_size`): its bytes are not worth what they cost it."""


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
        Above 0, at most `UPLOAD_ERROR`.
    """
    own = by_size(elements, small=SMALL_UPLOAD_ERROR, usual=UPLOAD_ERROR)
    return float(min(own, 4.0 ** -generous_rate(0.0, elements)))


def step_sigmas(elements: int) -> float:
    """Return the largest step of a published model, in deviations of the change.

    A step of `d` deviations has the relative squared error ``d^2 / 12``.

    Parameters
    ----------
    elements : int
        Floating-point elements of the model.
    """
    error = by_size(elements, small=SMALL_DOWNLOAD_ERROR, usual=DOWNLOAD_ERROR)
    return math.sqrt(12 * error)
