"""The device's half: the mod that compresses, and local training for torch."""

from .mod import CompressionMod, compression_mod

__all__ = ["CompressionMod", "compression_mod"]
