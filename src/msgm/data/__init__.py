"""Images and what is asked to be forgotten of them."""

from .images import Images
from .lists import FileRequest, ImageRequest, IndexRequest, request_of
from .requests import AnyRequest, ForgetRequest, Request, Split, parts, together
from .source import Source

__all__ = [
    "AnyRequest",
    "FileRequest",
    "ForgetRequest",
    "ImageRequest",
    "Images",
    "IndexRequest",
    "Request",
    "Source",
    "Split",
    "parts",
    "request_of",
    "together",
]
