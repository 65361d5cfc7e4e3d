"""Sinks that tell of a run elsewhere: give them to a strategy as ``on_record``."""
