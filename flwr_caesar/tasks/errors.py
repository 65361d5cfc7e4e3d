"""The error of a task whose configuration makes no sense."""

from __future__ import annotations


class ConfigError(ValueError):
    """A configuration value that cannot be used.

    Parameters
    ----------
    key : str
        Full name of the setting, such as ``"data.partition.alpha"``.
    message : str
        What is wrong with it, and what to write instead.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(key, message)
        self.key = key
        self.message = message

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"
