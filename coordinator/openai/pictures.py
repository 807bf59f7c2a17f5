"""A picture's URL as the internal request has it: bytes of a data: URL, or an address to fetch."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from coordinator.calls import ImageSource
from coordinator.openai.errors import BadRequestError

_DATA = re.compile(r"data:([^,]*),", re.IGNORECASE)


def to_source(url: str, param: str) -> ImageSource:
    """Raises BadRequestError naming `param` where a data: URL is broken."""
    found = _DATA.match(url)
    if found is None:
        return ImageSource(url=url)
    payload = url[found.end() :]
    if not found[1].lower().endswith(";base64"):
        return ImageSource(data=unquote_to_bytes(payload))
    try:
        return ImageSource(data=base64.b64decode(payload.encode(), validate=True))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise BadRequestError(f"{param}: no base64: {error}", param=param, code="invalid_value") from error
