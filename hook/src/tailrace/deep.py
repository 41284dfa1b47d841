"""Deep profiles: whether the gateway itself asked for one."""

from __future__ import annotations

import hmac

from tailrace import sender

MAC_DIGITS = 16


def make_mac(key: bytes, request: str) -> str:
    """The code the gateway sends with the request ``<trace>-<span>``: 16 hex digits."""
    return hmac.new(key, request.encode("ascii"), "sha256").hexdigest()[:MAC_DIGITS]


def allow(request: str, rest: str) -> bool:
    """Whether `rest`, the end of x-tailrace, begins with the right code for this request.

    Where it does not the gateway may have a new key: it is asked for.
    """
    key = sender.deep_key()
    mac = rest.split(";", 1)[0]
    if key is not None and hmac.compare_digest(make_mac(key, request), mac):
        return True
    sender.greet()
    return False
