"""A model that several devices of one process hold."""

from __future__ import annotations

from flwr_caesar.codec.contract.digest import NamedModel


class SharedModel(NamedModel):
    """A model of which each array is read-only, as other devices hold it too.

    Parameters
    ----------
    model : NamedModel
        The model; its arrays cannot be written to from now on.
    seconds : float
        For which it was decoded.

    Attributes
    ----------
    nbytes : int
        Of its arrays.
    stored : object
        What a store of states made of it, to be used again; `None` at first.
    """

    def __init__(self, model: NamedModel, seconds: float) -> None:
        super().__init__(model, model.digest)
        for array in model.values():
            array.flags.writeable = False
        self.nbytes = sum(array.nbytes for array in model.values())
        self.stored: object = None
        self._seconds = seconds
        self._is_new = True

    def spared(self) -> float:
        """Return the seconds that decoding it would have taken; 0 the first time."""
        was_new, self._is_new = self._is_new, False
        return 0.0 if was_new else self._seconds
