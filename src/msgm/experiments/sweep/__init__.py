"""Methods and settings with one budget, side by side."""
