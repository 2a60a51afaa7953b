"""Forgetting: loss terms, combiners and the recipes made of them."""
