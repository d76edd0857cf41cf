"""POST over HTTP for tok-ship: what an answer means, and how long to wait before the next try.

Certificates are verified, redirects are not followed, the environment's proxies are not used. A batch is acknowledged by
a whole answer of 2xx and by nothing else: whatever is in doubt is sent again.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tokenops import etiquette, https
from tokenops.etiquette import Answer, Trouble

if TYPE_CHECKING:
    import httpx

# What can be wrong with a batch besides the troubles of polls: the target says that its content is bad.
BAD = "bad"
# It took some of a batch, does not say which, and is not to be sent it again.
PARTIAL = "partial"
_MOST_BYTES = 8 << 20
_FIRST_MS, _MOST_MS = 500, 30_000

Send = Callable[[str, Mapping[str, str], bytes], Answer]


class Web:
    """Posts; httpx is only imported when there is something to send (85 ms)."""

    def __init__(self, timeout: float, version: str) -> None:
        self.timeout, self.version = timeout, version
        self.client: httpx.Client | None = None

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to a body, which is sent compressed. Raises Trouble."""
        import httpx

        if self.client is None:
            self.client = httpx.Client(trust_env=False, follow_redirects=False, timeout=httpx.Timeout(self.timeout))
        named = {"user-agent": f"tokenops/{self.version}", "content-encoding": "gzip", **headers}
        try:
            packed = gzip.compress(body, 5, mtime=0)
            with (
                https.deadline(4 * self.timeout),
                self.client.stream("POST", url, headers=named, content=packed) as answer,
            ):
                said = bytearray()
                for piece in answer.iter_bytes():
                    said += piece
                    if len(said) > _MOST_BYTES:
                        raise Trouble(
                            etiquette.CHANGED, f"its answer is larger than {_MOST_BYTES >> 20} MiB: check the address"
                        )
        except (httpx.TimeoutException, TimeoutError):
            raise Trouble(etiquette.FAILING, f"no answer within {self.timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            certificate = "CERTIFICATE" in str(error).upper()
            why = "its certificate cannot be verified" if certificate else f"it cannot be reached ({type(error).__name__})"
            raise Trouble(etiquette.FAILING, why) from None
        return Answer(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, bytes(said))

    def close(self) -> None:
        """Let go of connections."""
        if self.client is not None:
            self.client.close()


def checked(answer: Answer, now: int) -> Answer:
    """An answer that acknowledges. Raises Trouble, in whose sentence nothing of the answer's body stands."""
    status, retry = answer.status, etiquette.retry_ms(answer.headers, now)
    if 200 <= status < 300:
        return answer
    if status in (401, 403):
        raise Trouble(etiquette.REFUSED, f"it refused the credential ({status})")
    if status in (400, 413, 415, 422):
        raise Trouble(BAD, f"it refused the content ({status})")
    if status == 429:
        raise Trouble(etiquette.LIMITED, "asked to slow down (429)", retry)
    if status == 408 or status >= 500:
        raise Trouble(etiquette.FAILING, f"it is in trouble ({status})", retry)
    raise Trouble(etiquette.CHANGED, f"answered with status {status}: check the address")


def pause_ms(tries: int, trouble: Trouble, draw: float) -> int:
    """How long to wait before the next try of one batch: as long as it asks, else doubling, spread by chance."""
    wait = min(_FIRST_MS << min(tries, 10), _MOST_MS)
    return max(trouble.retry_ms, int(wait * (0.5 + draw / 2)))


def hopeless(trouble: Trouble) -> bool:
    """Whether another try of the same batch would end the same way."""
    return trouble.kind in (etiquette.REFUSED, etiquette.CHANGED, BAD, PARTIAL)
