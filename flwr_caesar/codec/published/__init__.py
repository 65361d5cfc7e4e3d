"""Models that a server publishes, as frames between points that all sides hold."""
