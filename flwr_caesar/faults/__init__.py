"""What goes wrong on purpose: `flwr-caesar faults`."""
