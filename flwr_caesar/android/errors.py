"""Why a model is not exported."""

from __future__ import annotations


class ExportError(ValueError):
    """A model cannot be exported; the message says why, and what to do."""


class ParityError(ExportError):
    """ExecuTorch computes something else than torch does."""
