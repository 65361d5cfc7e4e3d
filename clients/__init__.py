"""The client's half of the plugin."""
