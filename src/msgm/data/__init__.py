"""Images and what is asked to be forgotten of them."""

from .images import Images
from .pixels import to_model, to_pixels
from .requests import ForgetRequest, Split
from .source import Source

__all__ = ["ForgetRequest", "Images", "Source", "Split", "to_model", "to_pixels"]
