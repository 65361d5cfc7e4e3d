"""What the halves of FedComLoc say to each other."""

from __future__ import annotations

from flwr_caesar.codec import CodecError
from flwr_caesar.frozen import frozen

from .settings import Settings

_MAX_ID = 1 << 63


@frozen
class ControlSettings(Settings):
    """What a device is to do with its control variates.

    Parameters
    ----------
    epoch : int
        Name of the time since all devices had ``h = 0``; a device of another one sets
        its own to 0.
    phase : str
        ``"train"``, ``"settle"`` or ``"evaluate"``.
    p, lr : float
        Of the control phase, ``"settle"``: ``h`` moves by ``(p / lr) (mean - sent)``.
    support : bool
        Likewise: whether ``h`` moves only where the model is not 0, as the mean is not
        known elsewhere.
    """

    epoch: int
    phase: str = ""
    p: float = 0.0
    lr: float = 0.0
    support: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.epoch < _MAX_ID:
            raise CodecError(f"the server's plan has the control epoch {self.epoch}")


@frozen
class ControlReport(Settings):
    """What a device says of its control variates.

    Parameters
    ----------
    epoch : int
        That they are of.
    settled : int
        How often they were moved in it.
    """

    epoch: int
    settled: int
