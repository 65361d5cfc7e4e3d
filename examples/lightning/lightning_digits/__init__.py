"""A LightningModule, with compressed traffic."""
