"""A server that trains with one strategy after another, and says what it used."""
