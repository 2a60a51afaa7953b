"""Likelihoods of test images, retained and forgotten."""
