"""Downloading from servers that are sometimes too busy to answer."""

from urllib.error import HTTPError
from urllib.request import urlopen


class MirrorBusy(Exception):
    """The server cannot answer now and may be asked again later."""

    def __init__(self, url: str, status_code: int) -> None:
        super().__init__(url, status_code)
        self.url = url
        self.status_code = status_code

    def __str__(self) -> str:
        return f"{self.url} answered {self.status_code}"


def download(url: str) -> str:
    """Return the text behind an HTTP address, or raise MirrorBusy for an answer of 500 and above."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"not an HTTP address: {url}")
    try:
        with urlopen(url, timeout=10) as response:  # noqa: S310 - the scheme was looked at above
            body: bytes = response.read()
    except HTTPError as error:
        with error:
            if error.code >= 500:
                raise MirrorBusy(url, error.code) from None
            raise
    return body.decode()
