"""The demo's app, with points at which a test may kill it."""
