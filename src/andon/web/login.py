"""A login link for the person who holds the workspace's token."""

from __future__ import annotations

import urllib.error
import urllib.request

import msgspec

from andon.core.errors import Unavailable
from andon.core.workspace import Layout
from andon.governance.access import read_token

TIMEOUT_S = 15.0


class LoginCode(msgspec.Struct, frozen=True):
    """A code that opens one browser session, once, and for how many seconds it can."""

    code: str
    path: str
    seconds: int


def login_address(control: str, layout: Layout) -> str:
    """The address that opens the Now page in a browser, once, within ten minutes.

    Args:
        control: where the control process answers, such as `http://127.0.0.1:5000`.

    Raises:
        Unavailable: it does not answer there.
        Forbidden: the token file can be read by others.
    """
    headers = {"Authorization": f"Bearer {read_token(layout.token)}"}
    request = urllib.request.Request(f"{control}/api/login-codes", headers=headers, method="POST")  # noqa: S310  # our own
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310  # address, http on loopback
            code = msgspec.json.decode(answer.read(), type=LoginCode)
    except OSError as error:
        raise Unavailable(
            f"{control} gives no login code: {error}", hint="start the workspace with 'andon up'"
        ) from None
    return control + code.path
