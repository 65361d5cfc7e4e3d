"""SCAFFOLD on handwritten digits, with compressed models."""
