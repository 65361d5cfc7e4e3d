"""Which devices changed their power mode, and so compute at another speed."""

from __future__ import annotations

from collections.abc import Mapping


class PowerModes:
    """The power mode that each device told last.

    A device whose first mode is told has not changed it. A server that starts anew
    knows no modes: one that changed meanwhile is then learnt from its times, in three
    rounds, as any lasting change is.
    """

    def __init__(self) -> None:
        self._modes: dict[str, str] = {}

    def changed(self, told: Mapping[str, str]) -> list[str]:
        """Take in what devices tell; return those that told another mode before.

        Parameters
        ----------
        told : mapping of str to str
            Power mode by device; an empty one tells nothing.

        Returns
        -------
        list of str
            Devices whose estimates of compute are to be forgotten.
        """
        named = {device: mode for device, mode in told.items() if mode}
        changed = [
            device
            for device, mode in named.items()
            if self._modes.get(device, mode) != mode
        ]
        self._modes.update(named)
        return changed
