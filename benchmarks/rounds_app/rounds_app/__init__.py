"""A model of many tensors and no training."""
