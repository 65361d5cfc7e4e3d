"""What scales are of, and what a scale costs the integers of its slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.layout import Array

_LEAST_MEAN = 1e-9


@frozen
class Slices:
    """The integers that each of some scales is of.

    Parameters
    ----------
    sums : ndarray of float64, shape (n,)
        Their magnitudes' sum.
    sizes : ndarray of float64, shape (n,)
        Their number.
    tensors : ndarray of int64, shape (n,)
        The tensor of each scale.
    means : ndarray of float64, shape (tensors,)
        The mean magnitude of each tensor.
    """

    sums: Array
    sizes: Array
    tensors: Array
    means: Array

    @classmethod
    def join(cls, parts: Sequence[Slices]) -> Slices:
        """Return those of several tensors, one after another."""
        counts = [len(part.means) for part in parts]
        starts = np.cumsum([0, *counts[:-1]])
        tensors = [p.tensors + start for p, start in zip(parts, starts, strict=True)]
        return cls(
            np.concatenate([part.sums for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            np.concatenate(tensors),
            np.concatenate([part.means for part in parts]),
        )

    def bits(self, own: Array, scales: Array) -> Array:
        """Return about how many bits the integers take if a scale were another.

        Integers whose magnitudes are geometric with mean `m` take
        ``log2(1 + m) + |q| log2(1 + 1 / m)`` each, their signs aside.

        Parameters
        ----------
        own : ndarray of int64, shape (m,)
            Which of the scales.
        scales : ndarray of int, shape (k, m)
            What they might be, in quarters of an octave of the tensor's mean.

        Returns
        -------
        ndarray of float32, shape (k, m)
            Bits.
        """
        least, most = int(scales.min()), int(scales.max())
        mean = np.maximum(self.means, _LEAST_MEAN)[:, None]
        mean = mean * np.exp2(np.arange(least, most + 1) / 4)
        at = scales + (self.tensors[own] * mean.shape[1] - least)
        found: Array = np.log2(1 + mean).astype(np.float32).take(at)
        found *= self.sizes[own].astype(np.float32)
        beside = np.log2(1 + 1 / mean).astype(np.float32).take(at)
        beside *= self.sums[own].astype(np.float32)
        found += beside
        return found
