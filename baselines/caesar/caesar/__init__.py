"""Caesar (arXiv 2412.19989) as a Flower baseline."""
