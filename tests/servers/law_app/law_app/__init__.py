"""Devices that add one to a tensor of their own."""
