"""One image learnt by heart, then forgotten: how often a model draws it, and what brings it back."""
