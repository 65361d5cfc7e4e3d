"""FedComLoc (arXiv 2403.09904) as a Flower baseline."""
