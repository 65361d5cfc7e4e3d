"""Messages of a phase that the inner strategy knows nothing of."""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from .phase import ExtraPhase


def extra_messages(
    extra: ExtraPhase, model_key: str, model: ArrayRecord
) -> list[Message]:
    """Return a training message with the model for each device of an extra phase.

    Parameters
    ----------
    extra : ExtraPhase
        Which devices, and which records go along.
    model_key : str
        Name of the ArrayRecord that holds the model.
    model : ArrayRecord
        The model.
    """
    return [
        Message(
            RecordDict({model_key: model, "config": ConfigRecord(), **extra.records}),
            dst_node_id=node_id,
            message_type=MessageType.TRAIN,
        )
        for node_id in extra.node_ids
    ]
