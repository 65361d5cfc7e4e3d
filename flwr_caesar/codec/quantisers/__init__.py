"""What is kept of a tensor, and on which levels it is rounded."""
