"""An app that notes on which host each simulated device trained."""
