"""What a resumed run returns."""

from __future__ import annotations

from flwr.serverapp.strategy import Result


def shifted(result: Result, before: int) -> Result:
    """Count the rounds of a resumed run from the first."""
    for name in (
        "train_metrics_clientapp",
        "evaluate_metrics_clientapp",
        "evaluate_metrics_serverapp",
    ):
        metrics = getattr(result, name)
        setattr(result, name, {before + done: m for done, m in metrics.items()})
    return result
