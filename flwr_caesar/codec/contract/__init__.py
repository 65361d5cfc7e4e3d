"""The codec contract: frames, layouts, states, and what every codec shares."""
