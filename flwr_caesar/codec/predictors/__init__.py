"""What is expected of a tensor, so that only the difference is coded."""
