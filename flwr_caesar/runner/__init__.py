"""Running experiments: configuration, a SuperLink of one's own, the run folder."""
