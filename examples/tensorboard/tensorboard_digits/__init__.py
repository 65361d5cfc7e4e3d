"""Compressed traffic, watched in TensorBoard."""
