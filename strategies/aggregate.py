"""From the replies of a round to a model that was checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from logging import WARNING

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import CodecError, apply
from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.flower import arrays_in, log
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import record_to_arrays, widened_record

from .culprit import Refuse, drop_culprits, nobody
from .guard import Guard, remember
from .inner import aggregates_a_mean, looks_at_contents, needs_weights, snapshot
from .mean import Combined, RunningMean
from .metrics import array_names, disagreeing, with_weight
from .nested import weight_key
from .one_reply import Made, OneReply
from .phase import Phase, Reply

_LENGTHS = {"recent": "guard-lengths", "recent_counts": "guard-counts"}

_NOTHING: Made = (None, None)

NOT_AGAIN = "it cannot be decoded again"


class Aggregator:
    """Let the inner strategy aggregate, as often as it takes to get a usable model.

    The inner strategy's result, and what is published of it, are validated before
    anything is committed. If a model is not usable, the inner strategy is put back as
    it was, the reply that contributes most is refused, and the rest is aggregated
    again. If the inner strategy raises an error that it does not raise without some of
    the replies, these are refused. If nothing is left, the model stays as it was.

    Parameters
    ----------
    inner : Strategy
        The user's strategy.
    guard : Guard, optional
        Limits on one device; `None` for none.
    uniform : bool
        Whether all replies weigh the same.
    keeps_mean : bool
        Whether the mean of a phase's replies is there when the phase is over.

    Attributes
    ----------
    recent : tuple of float
        Lengths of the newest updates that were used.
    recent_counts : tuple of float
        By how much those changed what is not floating point.
    """

    def __init__(
        self,
        inner: Strategy,
        guard: Guard | None,
        *,
        uniform: bool,
        keeps_mean: bool = False,
    ) -> None:
        self.recent: tuple[float, ...] = ()
        self.recent_counts: tuple[float, ...] = ()
        self._inner = inner
        self._guard = guard
        self._uniform = uniform
        self._keeps_mean = keeps_mean
        self._takes_mean = aggregates_a_mean(inner)
        self._keeps_arrays = not self._takes_mean or looks_at_contents(inner)
        self._weighed = needs_weights(inner, "aggregate_train")
        self._has_worked = set[str]()
        self._key = weight_key(inner)
        self._one_reply = OneReply(inner, self._key)

    @property
    def longest(self) -> float:
        """Length of the longest update that is believed; 0 if that is not known."""
        return (self._guard or Guard()).longest(self.recent)

    def with_lengths(self, state: StrategyState) -> StrategyState:
        """Return a state that also holds the lengths, for a restarted server."""
        lengths = {key: list(getattr(self, name)) for name, key in _LENGTHS.items()}
        return replace(state, tree={**state.tree, **lengths})

    def restore(self, state: StrategyState) -> None:
        """Go on with the lengths in a state; older checkpoints have none.

        Raises
        ------
        DamagedStateError
            If they are no lengths.
        """
        for name, key in _LENGTHS.items():
            lengths = state.tree.get(key, [])
            if not isinstance(lengths, list) or not all(
                isinstance(each, float) and each >= 0 for each in lengths
            ):
                raise DamagedStateError("the checkpoint's lengths of updates are none")
            setattr(self, name, remember((), dict(enumerate(lengths))))

    def run(
        self,
        phase: Phase,
        replies: Iterable[Reply],
        *,
        decode_again: Callable[[Reply], dict[str, Array]],
        refuse: Refuse,
        publish: Callable[[ArrayRecord], ArrayRecord],
    ) -> Made:
        """Aggregate the replies of a training phase.

        Parameters
        ----------
        phase : Phase
            Whose `replies` are those that count; `mean` is set on it if it is kept.
        replies : iterable of Reply
            As they arrive; each is in ``phase.replies`` by then.
        decode_again : callable
            Returns the update of a reply whose `source` is kept.
        refuse : callable
            Called with a node, a reason and `is_fault`; takes the reply out of the
            phase.
        publish : callable
            Called with what the inner strategy made; returns the model to go on with,
            or raises CodecError if it cannot be used.

        Returns
        -------
        tuple of ArrayRecord and MetricRecord
            The model and the metrics; None of each if the model stays.
        """
        mean = RunningMean()
        combined: Combined | None = None
        for reply in replies:
            if self._keeps_arrays:
                trained = apply(reply.base, reply.update)
                reply.content[reply.key] = widened_record(trained)
            if self._takes_mean:
                mean.add(reply.update, reply.base, self._weight(reply))
                reply.update = {}
        if self._drop_too_long(phase, refuse):
            mean = RunningMean()
        while phase.replies:
            if self._takes_mean:
                try:
                    rebuilt = self._with_limits(phase, mean, decode_again, refuse)
                except CodecError:  # one that could be decoded once only is refused
                    mean = RunningMean()
                    continue
                if rebuilt is None:
                    break
                if not rebuilt.weight > 0:
                    log(WARNING, "All replies have the weight 0: the model is kept")
                    return _NOTHING
                combined = Combined.of(rebuilt)
                mean = rebuilt = RunningMean()  # its memory went into the model
            put_back = snapshot(self._inner)
            try:
                made, metrics = self._aggregate(phase, combined, refuse=refuse)
            except Exception as err:
                put_back()
                trial = partial(self._aggregate, combined=combined, refuse=nobody)
                drop_culprits(self._inner, phase, err, trial, refuse, self._has_worked)
                mean = RunningMean()
                continue
            self._has_worked.add(phase.kind)
            if made is None:
                return made, metrics
            combined = None
            try:
                model = publish(made)
            except CodecError as err:
                put_back()
                self._drop_largest(phase, refuse, str(err))
                mean = RunningMean()
                continue
            used = phase.replies.items()
            self.recent = remember(self.recent, {n: r.length for n, r in used})
            counts = {n: r.counted for n, r in used}
            self.recent_counts = remember(self.recent_counts, counts)
            return model, metrics
        return _NOTHING

    def evaluate(self, phase: Phase, refuse: Refuse) -> MetricRecord | None:
        """Aggregate the replies of an evaluation phase that go together.

        Parameters
        ----------
        phase : Phase
            Of which those that cannot be used are refused.
        refuse : callable
            See `run`.
        """
        weighed = needs_weights(self._inner, "aggregate_evaluate")
        while phase.replies:
            if weighed:
                contents = {n: reply.content for n, reply in phase.replies.items()}
                for node_id, reason in disagreeing(contents).items():
                    refuse(node_id, reason)
                if not any(reply.weight for reply in phase.replies.values()):
                    return None
            self.limit_weights(phase)
            put_back = snapshot(self._inner)
            try:
                metrics = self._evaluate(phase)
            except Exception as err:
                put_back()
                drop_culprits(
                    self._inner, phase, err, self._evaluate, refuse, self._has_worked
                )
                continue
            self._has_worked.add(phase.kind)
            return metrics
        return None

    def _evaluate(self, phase: Phase) -> MetricRecord | None:
        messages = []
        for reply in phase.replies.values():
            reply.message.content = reply.content
            messages.append(reply.message)
        return self._inner.aggregate_evaluate(phase.server_round, messages)

    def _weight(self, reply: Reply) -> float:
        return 1.0 if self._uniform else reply.weight

    def _drop_too_long(self, phase: Phase, refuse: Refuse) -> bool:
        if self._guard is None:
            return False
        guard, replies = self._guard, phase.replies
        found = guard.too_long({n: r.length for n, r in replies.items()}, self.recent)
        phase.too_long.update(found)
        for node_id, factor in found.items():
            refuse(
                node_id,
                f"its update is {factor:.3g} times as long as the median one, and at "
                f"most {guard.max_norm:g} times is believed (guards)",
            )
        counts = {n: reply.counted for n, reply in replies.items()}
        odd = guard.too_long(counts, self.recent_counts, most=guard.max_count)
        for node_id, factor in odd.items():
            refuse(
                node_id,
                f"its integers changed {factor:.3g} times as much as the median one's, "
                f"and at most {guard.max_count:g} times is believed (guards)",
            )
        return bool(found or odd)

    def limit_weights(self, phase: Phase) -> None:
        """Let no reply say more of its weight than counts, for means of metrics too."""
        if self._guard is None:
            return
        claimed = {n: reply.weight for n, reply in phase.replies.items()}
        for node_id, weight in self._guard.limited_weights(claimed).items():
            if weight != claimed[node_id]:
                reply = phase.replies[node_id]
                reply.content = with_weight(reply.content, self._key, weight)

    def _with_limits(
        self,
        phase: Phase,
        mean: RunningMean,
        decode_again: Callable[[Reply], dict[str, Array]],
        refuse: Refuse,
    ) -> RunningMean | None:
        """Return the mean of the phase's replies at limited weights.

        That is `mean`, if it is of these already; `None` if it cannot be made.

        Raises
        ------
        CodecError
            If a reply, which is refused, cannot be decoded again.
        """
        weights = {n: self._weight(reply) for n, reply in phase.replies.items()}
        limited = self._guard.limited_weights(weights) if self._guard else weights
        if mean.count == len(weights) and limited == weights:
            return mean
        if any(reply.source is None for reply in phase.replies.values()):
            self._log_largest(phase)
            return None
        for node_id, weight in limited.items():
            if weight != weights[node_id]:
                log(
                    WARNING,
                    "Node %d claims the weight %.6g; it counts as %.6g (guards)",
                    node_id,
                    weights[node_id],
                    weight,
                )
        mean = RunningMean()
        for node_id, reply in list(phase.replies.items()):
            try:
                update = decode_again(reply)
            except CodecError as err:
                # Not the device's fault: to make room, what its update builds on was
                # forgotten. The update returns to its residual.
                refuse(node_id, f"{NOT_AGAIN}: {err}", is_fault=False)
                raise
            mean.add(update, reply.base, limited[node_id])
        return mean

    def _aggregate(
        self, phase: Phase, combined: Combined | None, *, refuse: Refuse
    ) -> Made:
        self.limit_weights(phase)
        if combined is None:
            messages = self._agreeing(phase, refuse)
            if not messages:
                return _NOTHING
            return self._inner.aggregate_train(phase.server_round, messages)
        if self._keeps_mean:
            phase.mean = record_to_arrays(combined.record)
        return self._one_reply.aggregate(phase, combined)

    def _agreeing(self, phase: Phase, refuse: Refuse) -> list[Message]:
        if self._weighed:
            for node_id in [n for n, r in phase.replies.items() if not r.weight]:
                refuse(node_id, "it has no examples: its weight is 0", is_fault=False)
            contents = {n: reply.content for n, reply in phase.replies.items()}
            for node_id, reason in disagreeing(contents, array_names).items():
                refuse(node_id, reason)
        contents = {n: reply.content for n, reply in phase.replies.items()}
        for node_id, reason in disagreeing(contents).items():
            refuse(node_id, reason)
        messages = []
        for reply in phase.replies.values():
            content = reply.content.copy()
            for name, record in arrays_in(content).items():
                # FedMedian and others take the arrays out of what they are given.
                content[name] = ArrayRecord(dict(record))
            reply.message.content = content
            messages.append(reply.message)
        return messages

    def _drop_largest(self, phase: Phase, refuse: Refuse, why: str) -> None:
        self._log_largest(phase)
        largest = max(phase.replies.values(), key=self._contribution)
        phase.too_long.add(largest.node_id)
        refuse(
            largest.node_id,
            f"with its update, which contributes most, the model is not usable: {why}",
        )

    def _log_largest(self, phase: Phase) -> None:
        ranked = sorted(phase.replies.values(), key=self._contribution, reverse=True)
        log(
            WARNING,
            "The new model is not usable. Largest contributions (weight x length): %s",
            ", ".join(
                f"node {r.node_id}: {self._weight(r):.3g} x {r.length:.3g}"
                for r in ranked[:3]
            ),
        )

    def _contribution(self, reply: Reply) -> float:
        return self._weight(reply) * reply.length
