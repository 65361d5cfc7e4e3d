"""What goes wrong with kept state."""


class StateError(RuntimeError):
    """State cannot be kept or opened; the message says what to do."""


class DamagedStateError(StateError):
    """Kept state is torn, foreign, of another format or not what was written."""
