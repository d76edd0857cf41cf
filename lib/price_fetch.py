"""Gets the catalogue of prices that the user's configuration names, and checks who made it.

Signatures are those of `ssh-keygen -Y sign` (signing), so that a team needs no program of ours to make them. Nothing of
what is fetched is parsed before a pinned key or checksum confirms it.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from tokenops import config, https, regular, signing
from tokenops.etiquette import Request, Trouble

# What a signature must have been made for (ssh-keygen -n), so that one made for other things does not count.
NAMESPACE = "tokenops-prices"
# The built-in catalogue has 0.2 MiB.
MOST_BYTES = 4 << 20
MOST_SIGNATURE = 16 << 10
# For everything that is fetched together; a catalogue of 4 MiB takes 35 s at 1 Mbit/s.
SECONDS = 60.0
MOST_REDIRECTS = 5
_KEY = re.compile(
    r"(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-ssh-ed25519@openssh\.com|"
    r"sk-ecdsa-sha2-nistp256@openssh\.com) [A-Za-z0-9+/]+={0,3}"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Refused(ValueError):
    """A catalogue that is not installed: a sentence with the remedy."""


class Settings(NamedTuple):
    """Where the catalogue is, and what must confirm it."""

    url: str
    keys: tuple[str, ...]  # public keys as ssh-keygen writes them; a signature by one of them is enough
    sha256: str


def settings(user: config.Config) -> Settings:
    """What `pricing.update` of the user's own configuration says. Raises config.Unusable."""
    where = f"{user.path}: pricing.update"
    if not os.path.isabs(user.path):
        raise config.Unusable(
            where, "is read from a directory that depends on where you are", "set XDG_CONFIG_HOME to a full path"
        )
    spec = user.get("pricing", "update")
    if not isinstance(spec, Mapping) or not spec.get("url"):
        raise config.Unusable(where, "names no catalogue", "set url, and key or sha256; docs/pricing.md has an example")
    signing.only_own(user.path)
    url = _url(str(spec["url"]), f"{where}.url")
    listed = spec.get("key") or []
    keys = tuple(" ".join(str(key).split()[:2]) for key in (listed if isinstance(listed, list) else [listed]))
    if wrong := [key for key in keys if not _KEY.fullmatch(key)]:
        raise config.Unusable(f"{where}.key", f"{wrong[0][:40]!r} is not a public key", "copy the line of the .pub file")
    pinned = spec.get("sha256")  # YAML reads 64 decimal digits as a number
    checksum = pinned.lower() if isinstance(pinned, str) else ""
    if pinned is not None and not _SHA256.fullmatch(checksum):
        raise config.Unusable(f"{where}.sha256", "is not a SHA-256 checksum", "write 64 hexadecimal digits in quotes")
    if not keys and not checksum:
        raise config.Unusable(
            where, "pins neither a key nor a checksum", "set key or sha256: prices that anyone may have written are not used"
        )
    return Settings(url, keys, checksum)


def _url(text: str, where: str) -> str:
    parts = urllib.parse.urlsplit(text)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return text
    if parts.scheme != "https" or not parts.hostname:
        raise config.Unusable(where, f"{text!r} is neither https:// nor file:///", "use one of them")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise config.Unusable(where, "has a password, a query or a fragment", "give the plain address of the file")
    return text


def fetch(spec: Settings, seconds: float = SECONDS) -> tuple[bytes, bytes]:
    """The catalogue's bytes and those of its signature (empty if no key is pinned). Raises Refused."""
    until = time.monotonic() + seconds
    text = _bytes_of(spec.url, MOST_BYTES, until)
    return text, _bytes_of(f"{spec.url}.sig", MOST_SIGNATURE, until) if spec.keys else b""


def _bytes_of(url: str, most: int, until: float) -> bytes:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        path = urllib.parse.unquote(parts.path)
        try:
            with open(path, "rb", opener=regular.opener) as file:
                body = file.read(most + 1)
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}; check pricing.update.url") from None
    else:
        body = _download(url, until)
    if len(body) > most:
        raise Refused(f"{url}: is larger than {most >> 10:,} KiB; nothing was installed")
    return body


def _download(url: str, until: float) -> bytes:
    at = url
    for _ in range(MOST_REDIRECTS + 1):
        web = https.Web(max(until - time.monotonic(), 0.001), machine_roots=True)
        try:
            answer = web(Request(at, {"Accept-Encoding": "identity"}))
        except Trouble as trouble:
            raise Refused(f"{at}: {trouble.why}; nothing was installed, the prices in force stay") from None
        finally:
            web.close()
        if answer.status not in (301, 302, 303, 307, 308):
            if answer.status != 200:
                raise Refused(f"{at}: the server answered {answer.status}; check pricing.update.url")
            return answer.body
        at = urllib.parse.urljoin(at, answer.headers.get("location", ""))
        if urllib.parse.urlsplit(at).scheme != "https":
            raise Refused(f"{url}: the server redirects to {at[:200]!r}, which is not https; nothing was installed")
    raise Refused(f"{url}: more than {MOST_REDIRECTS} redirects; check pricing.update.url")


def verify(text: bytes, signature: bytes, spec: Settings) -> str:
    """By what a catalogue is confirmed, in a few words. All that is pinned must hold. Raises Refused."""
    proofs = []
    if spec.sha256:
        checksum = hashlib.sha256(text).hexdigest()
        if checksum != spec.sha256:
            raise Refused(f"{spec.url}: its SHA-256 is {checksum}, but {spec.sha256} is pinned; nothing was installed")
        proofs.append("the pinned SHA-256")
    if spec.keys:
        proofs.append(_signer(text, signature, spec))
    return " and ".join(proofs)


def _signer(text: bytes, signature: bytes, spec: Settings) -> str:
    """Which pinned key signed a text. Raises Refused."""
    signers = "".join(f'prices namespaces="{NAMESPACE}" {key}\n' for key in spec.keys).encode()
    try:
        fingerprint = signing.signer(text, signature, signers, "prices", NAMESPACE)
    except OSError as error:
        raise Refused(f"ssh-keygen: {error.strerror}; install OpenSSH, or pin sha256 instead of key") from None
    if fingerprint is None:
        raise Refused(f"{spec.url}: no pinned key has signed it (ssh-keygen -Y verify); nothing was installed")
    return f"a signature by {fingerprint or 'a pinned key'}"
