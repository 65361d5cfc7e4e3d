"""Backups of the server's durable folder, and an operator who puts one back."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from .chance import Chance
from .upload_law import Vector

_CHANCE_OF_BACKUP = 0.4
_MOST_BACKUPS = 4


@dataclass(frozen=True)
class Backup:
    """What the server had learned at some time.

    Parameters
    ----------
    folder : Path
        A copy of its folder.
    truth : mapping of str to set of int
        Uploads applied by then, by device.
    round : int
        The last round by then.
    model : ndarray, optional
        The model after it, if that is known.
    """

    folder: Path
    truth: dict[str, set[int]]
    round: int
    model: Vector | None


class Backups:
    """The last few backups of a folder.

    Parameters
    ----------
    live : Path
        The server's folder.
    chance : Chance
        Decides when one is made, and which is put back.
    """

    def __init__(self, live: Path, chance: Chance) -> None:
        self._live = live
        self._chance = chance
        self._kept: list[Backup] = []
        self._chosen: Backup | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def choose(self) -> None:
        """Choose one that is put back before the server lives again."""
        self._chosen = self._chance.random.choice(self._kept)

    def put_back(self) -> Backup | None:
        """Put the chosen one back; `None` if none was chosen."""
        backup, self._chosen = self._chosen, None
        if backup is not None:
            shutil.rmtree(self._live)
            shutil.copytree(backup.folder, self._live)
        return backup

    def may_be_due(self) -> bool:
        """Whether the operator makes one now."""
        return self._chance.random.random() < _CHANCE_OF_BACKUP

    def make(
        self,
        number: int,
        truth: dict[str, set[int]],
        server_round: int,
        model: Vector | None,
    ) -> None:
        """Copy the folder; of many backups the oldest goes.

        Parameters
        ----------
        number : int
            Of the phase; names the copy.
        truth, server_round, model
            See `Backup`.
        """
        folder = self._live.with_name(f"backup-{number}")
        shutil.copytree(self._live, folder, dirs_exist_ok=True)
        self._kept.append(Backup(folder, truth, server_round, model))
        for old in self._kept[:-_MOST_BACKUPS]:
            shutil.rmtree(old.folder)
        del self._kept[:-_MOST_BACKUPS]
