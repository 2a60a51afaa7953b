"""The evidence about one or two models, side by side."""
