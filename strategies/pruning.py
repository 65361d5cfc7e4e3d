"""Magnitude pruning: small weights become zero on the devices and on the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Unpack

from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import Codec, Layout, get_codec
from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.codec.quantisers.weights import FLOAT_BITS
from flwr_caesar.plan.by_size import LARGE, by_size
from flwr_caesar.sync.state import MODEL_PAYLOAD, Version

from .compressed import CompressedStrategy
from .method import ServerMethod
from .options import WrapperOptions
from .whole_downlink import WholeDownlink

# Of a tensor of a dozen numbers, such as a linear classifier, none can be spared.
_EXACT_BELOW = 32


Prune = Callable[[int], Codec]


class PrunedDownlink(WholeDownlink):
    """Whole models, pruned by what suits their size.

    Parameters
    ----------
    prune : callable
        Returns the codec for a model of so many elements.
    """

    def __init__(self, prune: Prune) -> None:
        super().__init__(prune(LARGE))
        self._prune = prune

    def begin(self, model: Mapping[str, Array]) -> Mapping[str, Array]:
        """See `Downlink.begin`."""
        self.codec = self._prune(Layout.of(model).num_params)
        return super().begin(model)

    def publish(self, model: Mapping[str, Array], number: int) -> Version:
        """See `Downlink.publish`."""
        self.codec = self._prune(Layout.of(model).num_params)
        return super().publish(model, number)


class PruningMethod(ServerMethod):
    """The server's half: prune the mean of pruned models.

    Parameters
    ----------
    device, server : callable
        Return, for a model of so many elements, the codec of what devices send and of
        what the server makes of their mean.
    """

    def __init__(self, device: Prune, server: Prune) -> None:
        super().__init__(
            downlink=PrunedDownlink(server), upload=device, payload=MODEL_PAYLOAD
        )
        self._server = server

    def finish(self, made: Arrays) -> Arrays:
        """Return the model as devices will decode it."""
        codec = self._server(Layout.of(made).num_params)
        return codec.encode_decoded(made)[1]


class MagnitudePruning(CompressedStrategy):
    """Whole models travel, without their smallest weights, averaged as ever.

    A device trains and sends its model, of which the ``prune_rate`` smallest
    magnitudes are zero; the inner strategy averages these models; the server prunes
    the mean. The pruned mean is the model from there on: it is what evaluate
    functions see, what `start` returns, and to the bit what devices receive. Messages
    are a mask and the packed survivors. No mask is remembered: a weight that was
    pruned is trained with the others and may come back.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    prune_rate : float, optional
        Fraction of its model's weights that a device prunes, in ``[0, 1]``. The
        threshold is one for the whole model. By default 0.5, and less of a model of
        fewer than 80,000 elements, which has fewer to spare: none up to 50,000
        (`flwr_caesar.plan.by_size.by_size`).
    server_prune_rate : float, optional
        The same for the server; the devices' rate if not given. 0: the mean is not
        pruned, and less sparse than each of the models it is of.
    exclude_1d : bool (default: True)
        Leave biases and normalisation alone.
    relative : bool (default: True)
        Compare tensors far smaller than the others relative to their scale, and leave
        those below 32 elements alone. False: magnitudes as they are, of all, as
        published.
    bits : int, optional
        1 to 8: survivors are quantised, in both directions, to the levels of
        quantisation-aware training with the same ``weight_bits``. `None`, the default,
        or 32: they stay float32.
    levels : {"uniform", "power_of_two"}
        Spacing of these levels.
    **options
        See `WrapperOptions`.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = MagnitudePruning(FedAvg(fraction_train=0.4), prune_rate=0.5)

    References
    ----------
    Grativol Ribeiro et al. (2023), arXiv:2310.14693. What is theirs and what is ours
    is said in docs/pruning.md.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        prune_rate: float | None = None,
        server_prune_rate: float | None = None,
        exclude_1d: bool = True,
        relative: bool = True,
        bits: int | None = None,
        levels: str = "uniform",
        **options: Unpack[WrapperOptions],
    ) -> None:
        rates = {"prune_rate": prune_rate, "server_prune_rate": server_prune_rate}
        for name, rate in rates.items():
            if rate is not None and not 0 <= rate <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {rate}")

        def pruning(rate: float | None) -> Prune:
            def codec(elements: int) -> Codec:
                own = by_size(elements, small=0.0, usual=0.5)
                return get_codec(
                    {
                        "id": "prune",
                        "prune_rate": own if rate is None else rate,
                        "exclude_1d": exclude_1d,
                        "exact_below": _EXACT_BELOW if relative else 0,
                        "bits": FLOAT_BITS if bits is None else bits,
                        "levels": levels,
                        "relative": relative,
                    }
                )

            return codec

        on_server = prune_rate if server_prune_rate is None else server_prune_rate
        method = PruningMethod(pruning(prune_rate), pruning(on_server))
        super().__init__(strategy, method, **options)
