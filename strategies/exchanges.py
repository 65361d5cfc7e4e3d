"""Which exchange a strategy needs: of its method's frames, or of plain arrays."""

from __future__ import annotations

from flwr.serverapp.strategy import Strategy

from .exchange import Exchange
from .framed import FrameExchange
from .method import ServerMethod
from .options import Options
from .plain import PlainExchange
from .privacy import require_clipped_uploads


def exchange_for(
    inner: Strategy, method: ServerMethod | None, options: Options
) -> Exchange:
    """Return the exchange of a strategy.

    Parameters
    ----------
    inner : Strategy
        The user's strategy.
    method : ServerMethod, optional
        What travels; `None` for plain arrays.
    options : Options
        Of the strategy.

    Raises
    ------
    ValueError
        If the method does not fit the inner strategy, or an option has no effect.
    """
    if method is None:
        if options.max_residual_age:
            raise ValueError("max_residual_age has no effect: no residual is kept")
        return PlainExchange(inner, sources=options.sources)
    require_clipped_uploads(
        inner, error_feedback=method.error_feedback, payload=method.payload
    )
    method.require(inner)
    return FrameExchange(
        inner,
        method,
        max_residual_age=options.max_residual_age,
        sources=options.sources,
    )
