"""Sends HTTPS requests, and talks to a vendor's own client over pipes.

Certificates are verified, redirects are not followed, the environment's proxies are not used, an answer has at most 8 MiB,
and every call has a deadline, so that a cron job never hangs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

import orjson

from tokenops import etiquette, programs, untrusted
from tokenops.etiquette import Answer, Message, Request, Trouble

if TYPE_CHECKING:
    import ssl

    import httpx

MOST_BYTES = 8 << 20
_GRACE_S = 2.0


class Web:
    """Sends requests to vendors; httpx is imported with the first request, since that takes 85 ms.

    `machine_roots`: trust the certificates that this machine trusts, such as a company's own, instead of the usual ones.
    """

    def __init__(self, timeout: float, machine_roots: bool = False) -> None:
        self.timeout, self.count = timeout, 0
        self.machine_roots = machine_roots
        self.client: httpx.Client | None = None

    def __call__(self, request: Request) -> Answer:
        """The answer to a request. Raises Trouble."""
        import httpx

        self.count += 1
        if self.client is None:
            trusted = machine_context() if self.machine_roots else True
            self.client = httpx.Client(
                verify=trusted, trust_env=False, follow_redirects=False, timeout=httpx.Timeout(self.timeout)
            )
        try:
            with deadline(self.timeout), self.client.stream("GET", request.url, headers=request.headers) as answer:
                body = bytearray()
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise Trouble(
                            etiquette.CHANGED, f"the answer is larger than {MOST_BYTES >> 20} MiB and was not read"
                        )
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return Answer(answer.status_code, headers, bytes(body))
        except (httpx.TimeoutException, TimeoutError):
            raise Trouble(etiquette.FAILING, f"no answer within {self.timeout:g} s") from None
        except httpx.DecodingError:
            raise Trouble(etiquette.FAILING, "the answer cannot be decompressed") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            certificate = "CERTIFICATE" in str(error).upper()
            why = "its certificate cannot be verified" if certificate else f"it cannot be reached ({type(error).__name__})"
            raise Trouble(etiquette.FAILING, why) from None

    def close(self) -> None:
        """Close the connections."""
        if self.client is not None:
            self.client.close()


def machine_context() -> ssl.SSLContext:
    """How certificates are verified everywhere on this machine; by the usual ones if it has none."""
    import ssl

    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:
        with contextlib.suppress(ImportError):
            import certifi

            context.load_verify_locations(certifi.where())
    return context


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after a time, also if a server sends a byte now and then."""

    def over(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Client:
    """A vendor's own client, run as a child and spoken to in lines of JSON."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: str, timeout: float) -> None:
        self.command, self.environment, self.folder, self.timeout = list(command), environment, folder, timeout
        self.process: subprocess.Popen[bytes] | None = None
        self.until = 0.0
        self.rest = b""
        self.count = self.read = 0
        self.handlers: dict[int, Any] = {}

    def __call__(self, message: Message) -> untrusted.Raw:
        """The answer to a message with an id; nothing for one without. Raises Trouble."""
        self.count += message.id is not None
        try:
            with deadline(max(self.until - time.monotonic(), 0.001) if self.process else self.timeout):
                process = self.process or self._start()
                process.stdin.write(orjson.dumps(message.object()) + b"\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
                return {} if message.id is None else self._answer(process.stdout, message.id)  # type: ignore[arg-type]
        except TimeoutError:
            raise Trouble(etiquette.FAILING, f"{self.command[0]}: no answer within {self.timeout:g} s") from None
        except BrokenPipeError:
            raise self._early_end() from None
        except OSError as error:
            raise Trouble(
                etiquette.FAILING, f"{self.command[0]}: {error.strerror}; set vendor_usage.codex.command"
            ) from None

    def _start(self) -> subprocess.Popen[bytes]:
        """The process, in a group of its own. The directory of its command is on its path, since cron's path is short."""
        name = self.command[0]
        file = name if os.path.isabs(name) else programs.path_of(name, self.environment.get("PATH"))
        if not file:
            raise FileNotFoundError(errno.ENOENT, "no absolute entry of PATH leads to it")
        folders = os.path.dirname(os.path.realpath(file)), os.path.dirname(file)
        path = os.pathsep.join([*folders, programs.safe_path(self.environment.get("PATH"))])
        inherited = {name: value for name, value in self.environment.items() if not name.startswith("TOKENOPS_")}
        self.until = time.monotonic() + self.timeout
        self.process = subprocess.Popen(
            [file, *self.command[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**inherited, "PATH": path},
            cwd=self.folder,
            start_new_session=True,
        )
        self.handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        return self.process

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """End the child before this process ends."""
        self.close()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _answer(self, stream: IO[bytes], name: int) -> untrusted.Raw:
        """The object with an id; notifications and lines that are not JSON are skipped. Raises Trouble."""
        while True:
            *lines, self.rest = self.rest.split(b"\n")
            for number, line in enumerate(lines):
                with contextlib.suppress(ValueError):
                    message = untrusted.json_value(line)
                    if isinstance(message, dict) and message.get("id") == name and "method" not in message:
                        self.rest = b"\n".join([*lines[number + 1 :], self.rest])
                        return message
            piece = os.read(stream.fileno(), 1 << 16)
            self.read += len(piece)
            if not piece:
                raise self._early_end()
            if self.read > MOST_BYTES:
                raise Trouble(
                    etiquette.CHANGED, f"{self.command[0]}: wrote more than {MOST_BYTES >> 20} MiB and was stopped"
                )
            self.rest += piece

    def _early_end(self) -> Trouble:
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE_S)
        status = self.process.returncode
        return Trouble(etiquette.FAILING, f"{self.command[0]}: ended before it answered (status {status}); run it by hand")

    def close(self) -> None:
        """End the child and its own children."""
        process, self.process = self.process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        for kill in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, kill)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
