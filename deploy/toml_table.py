"""Reading a TOML table strictly: each error names the key and says what to write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class NodeFileError(ValueError):
    """``node.toml`` cannot be used; the message names the key and what to write."""


class Table:
    """One table of a TOML document, of which every key has to be asked for.

    Parameters
    ----------
    name : str
        As in the file; empty for the whole document.
    values : mapping
        What it holds.
    """

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name = name
        self.values = values
        self._asked: set[str] = set()

    def table(self, key: str, *, required: bool = True) -> Table:
        """Return a table inside; an empty one if it may be missing and is.

        Raises
        ------
        NodeFileError
            If it is missing or no table.
        """
        self._asked.add(key)
        value = self.values.get(key)
        if value is None and not required:
            return Table(key, {})
        if not isinstance(value, dict):
            raise NodeFileError(f"has no table [{key}]; write one")
        return Table(key, value)

    def text(self, key: str, advice: str, *, default: str | None = None) -> str:
        """Return a text that is not empty."""
        value = self._take(key, str, advice, default)
        if not value and default is None:
            raise NodeFileError(f"{self._label(key)} is empty; {advice}")
        return str(value)

    def integer(self, key: str, advice: str, *, default: int | None = None) -> int:
        """Return a whole number."""
        return int(self._take(key, int, advice, default))

    def number(self, key: str, advice: str, *, default: float | None = None) -> float:
        """Return a number."""
        return float(self._take(key, (int, float), advice, default))

    def texts(self, key: str, advice: str) -> tuple[str, ...]:
        """Return a list of texts; none if it is missing."""
        value = self._take(key, list, advice, [])
        if not all(isinstance(item, str) for item in value):
            raise NodeFileError(f"{self._label(key)} is {value!r:.80}; {advice}")
        return tuple(value)

    def end(self) -> None:
        """Refuse what was not asked for.

        Raises
        ------
        NodeFileError
            If there is a key that nobody knows.
        """
        for key in self.values:
            if key not in self._asked:
                known = ", ".join(sorted(self._asked))
                raise NodeFileError(
                    f"{self._label(key)} is no setting; remove it, or write one of: "
                    f"{known}"
                )

    def _take(
        self, key: str, kind: type | tuple[type, ...], advice: str, default: Any
    ) -> Any:
        self._asked.add(key)
        if key not in self.values:
            if default is None:
                raise NodeFileError(f"{self._label(key)} is missing; {advice}")
            return default
        value = self.values[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise NodeFileError(f"{self._label(key)} is {value!r:.80}; {advice}")
        return value

    def _label(self, key: str) -> str:
        return f"[{self.name}] {key}" if self.name else f"[{key}]"
