"""Signs files and checks who signed them, with OpenSSH's own program, so that nobody needs a program of ours to do either.

Signatures are those of `ssh-keygen -Y sign` (OpenSSH 8.1 and later; ssh-keygen(1), read 2026-12-01). Each is made for a
namespace, so that one made for other things does not count.
"""

from __future__ import annotations

import os
import stat

from tokenops import config, datadir, light, programs

SECONDS = 60.0
_FINGERPRINT = light.pattern(rb"SHA256:[A-Za-z0-9+/]+")
_BEGIN = b"-----BEGIN SSH SIGNATURE-----"


class NotSigned(ValueError):
    """Why a file could not be signed, in a sentence with the remedy."""


def only_own(path: str) -> None:
    """Refuse a file that others can write: they could name keys of theirs in it. Raises config.Unusable, OSError."""
    status = os.stat(path)
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & stat.S_IWOTH:
        raise config.Unusable(path, "other users can change it", f"run chmod o-w {path}, or own it")


def signer(text: bytes, signature: bytes, signers: bytes, identity: str, namespace: str) -> str | None:
    """The fingerprint of the key with which `identity` signed a text; None if it did not.

    `signers`: a list as in ssh-keygen(1), ALLOWED SIGNERS. Raises OSError if ssh-keygen is not there.
    """
    import tempfile  # 3 ms, which other verbs of a command need not pay

    with tempfile.TemporaryDirectory(prefix="tok-sign-") as folder:
        allowed, path = os.path.join(folder, "signers"), os.path.join(folder, "signature")
        datadir.replace(allowed, signers, durable=False)
        datadir.replace(path, signature, durable=False)
        command = ["ssh-keygen", "-Y", "verify", "-f", allowed, "-I", identity, "-n", namespace, "-s", path]
        ended = programs.run(command, SECONDS, folder, text)
    if ended.status:
        return None
    fingerprint = _FINGERPRINT.search(ended.out)
    return fingerprint[0].decode() if fingerprint else ""


def sign(text: bytes, key: str, namespace: str) -> bytes:
    """The signature of a text by the private key in a file, or by the agent's key of which the public one is there.

    Raises NotSigned, OSError if ssh-keygen is not there.
    """
    if not os.path.isfile(key):
        raise NotSigned(f"{key}: no such file; give the path of your SSH key")
    ended = programs.run(["ssh-keygen", "-Y", "sign", "-f", os.path.abspath(key), "-n", namespace], SECONDS, None, text)
    if ended.status or not ended.out.startswith(_BEGIN):
        reasons = ended.err.decode(errors="replace").strip().splitlines()
        raise NotSigned(
            f"{key}: ssh-keygen cannot sign with it ({reasons[-1] if reasons else 'no reason'}); give another key"
        )
    return ended.out
