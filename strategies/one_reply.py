"""An inner strategy that takes a mean is given it as the one reply of a round."""

from __future__ import annotations

from functools import cached_property

from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy

from .inner import looks_at_contents, standing_in
from .mean import Combined
from .metrics import agreeing
from .phase import Phase

Made = tuple[ArrayRecord | None, MetricRecord | None]


class OneReply:
    """Have a strategy aggregate the mean of a phase's replies, and their metrics.

    `FedAvg` and its relatives return the mean of what they are given, which is this one
    reply to the bit. So they are given a record without arrays, and its place is taken
    by the mean afterwards, which saves two models in memory.

    Parameters
    ----------
    inner : Strategy
        The user's strategy; see `inner.aggregates_a_mean`.
    key : str
        Its name for the weight of a reply.
    """

    def __init__(self, inner: Strategy, key: str) -> None:
        self._inner = inner
        self._key = key
        self._own_metrics = looks_at_contents(inner)
        self._returns_it = type(
            inner
        ).aggregate_train is FedAvg.aggregate_train and "aggregate_train" not in vars(
            inner
        )
        self._phase = Phase("", 0)

    @cached_property
    def _stand_in(self) -> Strategy:
        # One for all rounds: a class made for a round would keep what that held alive
        # until Python looks for cycles.
        return standing_in(self._inner, {"train_metrics_aggr_fn": self._metrics})

    def aggregate(self, phase: Phase, combined: Combined) -> Made:
        """Return the model and the metrics that the strategy makes of a phase.

        Parameters
        ----------
        phase : Phase
            With the replies that count, one at the least.
        combined : Combined
            Their mean.
        """
        newest = next(reversed(phase.replies.values()))
        given = ArrayRecord() if self._returns_it else combined.record
        weight = MetricRecord({self._key: combined.weight})
        message = newest.message
        message.content = RecordDict({newest.key: given, "metrics": weight})
        self._phase = phase
        try:
            made, metrics = self._stand_in.aggregate_train(
                phase.server_round, [message]
            )
        finally:
            message.content = RecordDict()
            self._phase = Phase("", 0)
        if made is not None and self._returns_it:
            made = combined.record
        return made, metrics

    def _metrics(self, _: object, key: str) -> MetricRecord:
        """Return the metrics of a phase, of those replies that go together.

        Flower's mean of them divides by the sum of weights, so what has none has no
        part in it.
        """
        contents = [
            reply.content
            for reply in self._phase.replies.values()
            if self._own_metrics or reply.weight > 0
        ]
        if not contents:
            return MetricRecord()
        aggregate = getattr(self._inner, "train_metrics_aggr_fn")  # noqa: B009
        metrics: MetricRecord = aggregate(agreeing(contents), key)
        return metrics
