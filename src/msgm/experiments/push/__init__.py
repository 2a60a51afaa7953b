"""A model with its card for the hub."""
