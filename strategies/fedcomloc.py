"""FedComLoc: control variates, compressed models, and a sum that stays zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from flwr.serverapp.strategy import Strategy

from .compressed import CompressedStrategy
from .fedcomloc_method import FedComLocMethod
from .options import WrapperOptions


class FedComLoc(CompressedStrategy):
    """Local training with control variates, and models that are compressed.

    All devices of a round take the same number of local steps ``x - lr (g - h)``. The
    control variate ``h`` of a device corrects its drift from the others; it is moved by
    ``(p / lr) (mean - sent)`` when the mean of the models is known, for which the
    devices of a round are sent it right after the aggregation, in a phase of its own
    (the control phase, ``"settle"`` in records). The sum of all ``h`` is then zero.
    What would break that (a device that lost its state, or was not reached in that
    phase) begins a new control epoch: every device sets its ``h`` to 0 before it
    trains again.

    Weights are uniform. The app's training needs one line
    (`flwr_caesar.clients.fedcomloc.fedcomloc`), plain SGD and the same `lr`.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy. With `control` it must take a mean of the replies.
    lr : float
        Step size of the devices' SGD.
    variant : {"com", "local", "global"}
        What is compressed: the model that a device sends, the one at which it takes
        gradients, or the one that the server sends.
    codec : mapping or str, optional
        Any codec of the registry in place of what `density`, `bits`, `bucket` and
        `values` describe, which must then be left out, such as ``{"id": "rotated",
        "bits": 4}``. It compresses models and has no residual: which are unbiased is
        said in docs/fedcomloc.md. `variant="local"` takes topk and qsgd only.
    density : float
        Fraction of each tensor that is kept, the largest magnitudes, in ``(0, 1]``.
    bits : int
        1 to 16: round what is kept to ``2**bits`` levels of its Euclidean norm,
        unbiased. 32: do not.
    bucket : int, optional
        Consecutive elements of a tensor that share that norm, which costs 32 bits; 0:
        all of a tensor, with which few bits diverge. By default `default_bucket`, of
        elements that are kept.
    values : {"float16", "float32"}
        Precision of the elements kept, without rounding to levels.
    exact_below : int
        Tensors of fewer elements are not compressed. An output layer of a few thousand
        costs little to send, and much accuracy to thin out.
    p : float
        Probability of a communication after a step, in ``(0, 1]``.
    steps : {"geometric", "fixed"}
        Local steps of a round: drawn for all devices with mean ``1 / p``, or that
        number, rounded.
    feedback : float
        ``variant="global"``: how much of what earlier models left out the next one gets
        back, in ``[0, 1]``. 1, the default, is error feedback; 0 is as published: none,
        and control variates move by the compressed model.
    control : bool
        False: no control variates and no such phase. With ``variant="com"`` that is
        federated averaging of sparse models.
    seed : int
        Of the draws.
    **options
        See `WrapperOptions`.

    Attributes
    ----------
    resets : int
        Control epochs that this server had to begin anew.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the inner strategy takes no mean.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = FedComLoc(FedAvg(fraction_train=0.1), lr=0.05, density=0.3)

    References
    ----------
    Yi et al. (2024), FedComLoc, arXiv:2403.09904. Mishchenko et al. (2022), ProxSkip,
    arXiv:2202.09357. What is theirs and what is ours is said in docs/fedcomloc.md.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        lr: float,
        variant: str = "com",
        codec: Mapping[str, Any] | str | None = None,
        density: float = 0.3,
        bits: int = 32,
        bucket: int | None = None,
        values: str = "float16",
        exact_below: int = 4096,
        p: float = 0.1,
        steps: str = "geometric",
        feedback: float = 1.0,
        control: bool = True,
        seed: int = 0,
        **options: Unpack[WrapperOptions],
    ) -> None:
        if codec is not None:
            _refuse_changed(density=density, bits=bits, bucket=bucket, values=values)
        method = FedComLocMethod(
            lr=lr,
            variant=variant,
            density=density,
            bits=bits,
            bucket=bucket,
            values=values,
            exact_below=exact_below,
            codec=codec,
            p=p,
            steps=steps,
            control=control,
            feedback=feedback,
            seed=seed,
            sources=options.get("sources"),
        )
        super().__init__(strategy, method, **options)
        self._method = method

    @property
    def resets(self) -> int:
        """Control epochs that this server had to begin anew."""
        return self._method.resets

    def local_steps(self, server_round: int) -> int:
        """Return the local steps of all devices in a round."""
        return self._method.local_steps(server_round)


def _refuse_changed(**settings: Any) -> None:
    """Refuse what describes ``C`` beside a codec that is named, if it was set."""
    defaults = FedComLoc.__init__.__kwdefaults__ or {}
    for name, value in settings.items():
        if value != defaults[name]:
            raise ValueError(f"{name} has no effect with codec: set it in the codec")
