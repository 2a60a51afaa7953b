"""Images and what is asked to be forgotten of them."""

from .images import Images
from .requests import FileRequest, ForgetRequest, IndexRequest, Request, Split, request_of
from .source import Source

__all__ = [
    "FileRequest",
    "ForgetRequest",
    "Images",
    "IndexRequest",
    "Request",
    "Source",
    "Split",
    "request_of",
]
