"""The device's half: the mod that compresses, and local training for torch."""

from .mod import compression_mod

__all__ = ["compression_mod"]
