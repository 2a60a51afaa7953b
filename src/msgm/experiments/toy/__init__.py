"""The toy experiment with exact answers: the paper's Table 1, Figures 1 and 2, and an oracle beside every objective."""

from .main import reproduce

__all__ = ["reproduce"]
