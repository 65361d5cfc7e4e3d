"""The folder that ``flwr run`` bundles; importable so that it can be found."""
