"""Images and what is asked to be forgotten of them."""

from .datasets import ImageData, load_data, mnist, to_model, to_pixels

__all__ = ["ImageData", "load_data", "mnist", "to_model", "to_pixels"]
