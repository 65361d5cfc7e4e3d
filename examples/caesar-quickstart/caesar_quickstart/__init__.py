"""A Flower app whose traffic is compressed."""
