"""Torch modules as training programs for phones: ``flwr-caesar export-android``."""
