"""Logistic regression in scikit-learn, with compressed traffic."""
