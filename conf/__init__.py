"""Hydra configuration of ``flwr-caesar run`` (import name ``flwr_caesar.conf``)."""
