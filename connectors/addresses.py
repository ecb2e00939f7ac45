"""`host:port`, where something listens."""

import re

from ..engine.errors import ConfigError

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:\[\]]+)):([0-9]{1,5})")


def host_and_port(address: str) -> tuple[str, int]:
    """Of "127.0.0.1:9464" or "[::1]:9464". Raises ConfigError."""
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found[3]) > 65535:
        raise ConfigError(
            f"is {address!r}: expected host:port, as in '127.0.0.1:9464' or '[::1]:9464'; "
            "'0.0.0.0:9464' listens on every interface"
        )
    return found[1] or found[2], int(found[3])
