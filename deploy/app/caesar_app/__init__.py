"""The reference app of flwr-caesar."""
