"""Who holds which version, and what of a device's learning has been applied."""
