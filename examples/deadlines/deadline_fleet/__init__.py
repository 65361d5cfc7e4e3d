"""A fleet of unlike devices, and rounds that close without the slowest."""
