"""Differential privacy on the server, with compressed traffic."""
