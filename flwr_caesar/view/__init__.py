"""Runs seen by people: a page while they go on, a report afterwards."""
