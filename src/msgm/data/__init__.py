"""Images and what is asked to be forgotten of them."""

from .datasets import ImageData, load_data, mnist, to_model, to_pixels
from .requests import ForgetRequest, Split

__all__ = ["ForgetRequest", "ImageData", "Split", "load_data", "mnist", "to_model", "to_pixels"]
