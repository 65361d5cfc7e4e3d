"""What keeps a device or a server from taking part, each with what to do."""
