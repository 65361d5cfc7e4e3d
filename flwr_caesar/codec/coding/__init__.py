"""Integers, positions and narrow values to bytes and back, without loss."""
