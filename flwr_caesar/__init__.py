"""flwr-caesar: federated learning over thin links, as a Flower plugin."""

__version__ = "0.1.0"
