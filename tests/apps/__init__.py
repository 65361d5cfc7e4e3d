"""Ordinary Flower apps, a file for each habit, under plain Flower and under ours."""
