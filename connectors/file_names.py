"""Names of streams as names of files: letters, digits, `-`, `_` and `.` stand for themselves, the rest is percent-encoded."""

import hashlib
from urllib.parse import quote

MAX_CHARACTERS = 180


def file_name(stream: str) -> str:
    """Never hidden, never empty, never two for one. A long one is cut, and ends in `%-` and its digest instead."""
    name = quote(stream, safe="", errors="surrogatepass").replace("~", "%7E") or "%"
    name = "%2E" + name[1:] if name.startswith(".") else name
    if len(name) <= MAX_CHARACTERS:
        return name
    return f"{name[: MAX_CHARACTERS - 34]}%-{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"
