"""Fetching pictures over HTTP, with the standard library. Nothing is fetched that the user has not typed.

Notable choices:
- Size and total time are limited, also for a server that sends a byte a second.
- User and password of the address are sent to its host only, not to where it redirects. Redirects lead to http and
  https only.
- Errors never quote the address as typed (see `Address`); the cause is left out of them for the same reason.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import time
import urllib.error
import urllib.request
from email.message import Message
from typing import IO, Any
from urllib.parse import unquote, urlunsplit

from fcos_cli.errors import DataError
from fcos_cli.predict.sources.address import Address
from fcos_cli.predict.sources.stop import Stop

TIMEOUT = 10.0
"""Seconds without any answer."""
MAX_SECONDS, MAX_BYTES = 60.0, 100_000_000
"""Limits of a whole picture."""
CHUNK = 1 << 16


class Remote:
    """The answer of a server, open for reading. kind: media type in lower case, such as `image/jpeg`."""

    def __init__(self, address: Address, answer: Any) -> None:
        self.address, self._answer = address, answer
        headers: Message = answer.headers
        self.kind = headers.get_content_type().lower()

    def read(self, stop: Stop | None = None) -> bytes:
        """Return the content. Raises DataError above the limits and for a broken connection, KeyboardInterrupt once
        `stop` is set."""
        content, end = bytearray(), time.monotonic() + MAX_SECONDS
        try:
            while chunk := self._answer.read1(CHUNK):
                content += chunk
                if stop is not None and stop.is_set():
                    raise KeyboardInterrupt
                if len(content) > MAX_BYTES:
                    raise _error(self.address, f"the file has more than {MAX_BYTES // 10**6} MB", "download it first")
                if time.monotonic() > end:
                    raise _error(self.address, f"the file took longer than {MAX_SECONDS:g} s", "download it first")
        except (OSError, http.client.HTTPException) as error:
            raise _error(self.address, f"the connection broke ({_reason(error)})", "try again") from None
        missing = self._answer.length  # what the server promised and did not send
        if missing:
            raise _error(self.address, f"the connection broke {missing:,} bytes too early", "try again")
        return bytes(content)

    def close(self) -> None:
        self._answer.close()


def connect(address: Address) -> Remote:
    """Ask an http or https address for its content. Raises DataError."""
    opener = urllib.request.OpenerDirector()
    for handler in (  # without the handlers of ftp and file, to which a server could redirect
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    try:
        answer: IO[bytes] | None = opener.open(_request(address), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise _error(address, f"the server answered {error.code} {error.reason}", _remedy(error.code)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _error(address, f"the server cannot be reached ({_reason(error)})", _remedy_for(error)) from None
    if answer is None:
        raise _error(address, "the server redirects to an address that is not http or https", "check the address")
    return Remote(address, answer)


def _request(address: Address) -> urllib.request.Request:
    parts = address.parts
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(urlunsplit((parts.scheme, host, parts.path or "/", parts.query, "")))
    request.add_header("User-Agent", "fcos-cli")
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        # unredirected: not sent to another host
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    return request


def _reason(error: BaseException) -> str:
    """What went wrong, in a few words that do not quote the address."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"no secure connection: {cause.reason}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(cause).__name__ if isinstance(cause, BaseException) else "not possible"


def _remedy(code: int) -> str:
    if code in (401, 403):
        return "give user and password: http://user:password@host/path"
    return "check the address" if code in (404, 410) else "try again later"


def _remedy_for(error: BaseException) -> str:
    secure = isinstance(getattr(error, "reason", None), ssl.SSLError)
    return "check the address, or use http:// if the server has no https" if secure else "check the address"


def _error(address: Address, what: str, remedy: str) -> DataError:
    return DataError(what, where=address, remedy=remedy)
