"""The one error of planning."""


class PlanError(ValueError):
    """A rule was asked for something it has no answer to; the message says what."""
