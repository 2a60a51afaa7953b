"""The audit: every attack on a model, on its parent and on retrained models, and a verdict for each."""
