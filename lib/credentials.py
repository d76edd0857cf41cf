"""Finds a vendor's credential, and masks secrets in text.

A credential is in the environment, a private file, or a file of the vendor's own client. Values in config.yaml name its
place (`env:NAME`, `file:PATH`); the secret itself works too, with a warning. Files of other programs are only read, and
only for a source that the user enabled. A message never contains a secret.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tokenops import datadir, light, regular, untrusted

_PRINTABLE = re.compile(r"[\x21-\x7e]{1,8192}\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
FOLDER = "secrets"


class Missing(ValueError):
    """No usable credential: a sentence that says why. `status`: unset or expired."""

    def __init__(self, why: str, status: str = "unset") -> None:
        super().__init__(why)
        self.status = status


class Credential(NamedTuple):
    """A secret and where it was found. `fingerprint` distinguishes it from another without revealing it."""

    secret: str
    where: str
    fingerprint: str
    owner: str = ""  # the vendor's identity of the account, if the same file names it
    plan: str = ""


def is_this_machine(host: str) -> bool:
    """Whether what is sent to a host stays on this machine, so that it needs no encryption."""
    return re.fullmatch(r"(?:.+\.)?localhost|::1|127(?:\.\d{1,3}){3}", host.lower()) is not None


def fingerprint(secret: str, salt: bytes) -> str:
    """A hash that distinguishes a secret from the next one."""
    return light.blake2b(secret.encode(), key=salt[:64], digest_size=9, person=b"poll").hexdigest()


def resolve(value: str, environment: Mapping[str, str], base: str, salt: bytes, cookie: str = "") -> Credential:
    """The credential that a value of the configuration refers to. Relative files are relative to `base`. Raises Missing."""
    kind, _, rest = value.partition(":")
    if kind == "env":
        if not environment.get(rest):
            raise Missing(f"the environment variable {rest} is not set; set it (for cron: in the crontab), or use file:")
        return check(environment[rest], f"env:{rest}", salt, cookie)
    if kind == "file":
        path = os.path.join(base, os.path.expanduser(rest))
        return check(content(path), f"file:{path}", salt, cookie)
    return check(value, "config.yaml", salt, cookie)


def content(path: str) -> str:
    """The one line of a private file. Raises Missing."""
    try:
        with open(path, encoding="utf-8", opener=regular.opener) as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise Missing(f"{path}: others may read it; chmod 600 {path}")
            return file.read(1 << 16).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Missing(f"{path}: {getattr(error, 'strerror', None) or 'is not text'}; store the credential there") from None


def check(secret: str, where: str, salt: bytes, cookie: str = "") -> Credential:
    """A secret, checked for characters that none can have. Raises Missing."""
    checked = cookie_value(secret.strip(), cookie)
    if not _PRINTABLE.match(checked):
        raise Missing(f"{where}: is empty or contains spaces or invalid characters; store it again")
    return Credential(checked, where, fingerprint(checked, salt))


def cookie_value(text: str, name: str) -> str:
    """The value of a cookie from what a browser shows: the value, name=value, or a whole line of them."""
    for part in text.split(";") if name else ():
        key, equals, value = part.strip().partition("=")
        if equals and key == name:
            return value
    return text


def first_available(
    value: str,
    variables: Sequence[str],
    fallbacks: Sequence[str],
    environment: Mapping[str, str],
    base: str,
    salt: bytes,
    cookie: str = "",
) -> Credential:
    """Our variable, else the configuration's value, else the vendor's usual variable. Raises Missing."""
    for name in variables:
        if environment.get(name):
            return check(environment[name], f"env:{name}", salt, cookie)
    if value:
        return resolve(value, environment, base, salt, cookie)
    for name in fallbacks:
        if environment.get(name):
            return check(environment[name], f"env:{name}", salt, cookie)
    raise Missing(f"no credential; pass one with --key -, or set {' or '.join((*variables, *fallbacks))}")


def copilot(environment: Mapping[str, str], user: str, salt: bytes) -> Credential:
    """The token that GitHub's plugins keep: that of github.com, in the order of files and keys. Raises Missing."""
    config = environment.get("XDG_CONFIG_HOME") or os.path.join(user, ".config")
    folders = (os.path.join(config, "github-copilot"), os.path.join(user, ".copilot"))
    for path in (os.path.join(folder, name) for folder in folders for name in ("apps.json", "hosts.json")):
        entries = untrusted.mapping(datadir.read_json(path))
        for key in sorted(entries):
            if re.split(r":(?!//)", key)[0] == "github.com":
                entry = untrusted.mapping(entries[key])
                token = untrusted.text(entry.get("oauth_token"), 8192)
                if token:
                    return check(token, path, salt)._replace(owner=untrusted.identity(entry.get("user")))
    raise Missing(f"no Copilot plugin has stored a token in {' or '.join(folders)}; sign in to one, or use --key -")


def claude_files(environment: Mapping[str, str], user: str, name: str) -> Iterator[str]:
    """Where a file of Claude Code may be, the configured directories first."""
    listed = [part.strip() for part in environment.get("CLAUDE_CONFIG_DIR", "").split(",") if part.strip()]
    for folder in listed or [os.path.join(user, ".claude")]:
        yield os.path.join(os.path.expanduser(folder), name)
    if not listed and name == ".claude.json":
        yield os.path.join(user, name)


def claude(environment: Mapping[str, str], user: str, salt: bytes, now: int) -> Credential:
    """The token in Claude Code's file, if it has not expired. Raises Missing."""
    why = "Claude Code has no .credentials.json here (on macOS its token is in the keychain, which TokenOps does not read)"
    for path in claude_files(environment, user, ".credentials.json"):
        document = untrusted.mapping(datadir.read_json(path))
        login = untrusted.mapping(document.get("claudeAiOauth"))
        token = untrusted.text(login.get("accessToken"), 8192)
        if not token:
            if os.path.exists(path):
                why = f"{path}: contains no login of a Claude plan; log in with Claude Code"
            continue
        if _over(login.get("expiresAt"), now):
            raise Missing(f"{path}: the token has expired; start Claude Code to renew it", "expired")
        scopes = untrusted.items(login.get("scopes"))
        if scopes and "user:profile" not in scopes:
            raise Missing(
                f"{path}: this login (made by setup-token) has no permission to read usage; log in with Claude Code"
            )
        owner = untrusted.identity(document.get("organizationUuid")) or _organization(environment, user)
        plan = untrusted.text(login.get("rateLimitTier"), 60) or untrusted.text(login.get("subscriptionType"), 60)
        return check(token, path, salt)._replace(owner=owner, plan=plan)
    raise Missing(why)


def _organization(environment: Mapping[str, str], user: str) -> str:
    """The organisation that Claude Code is logged in to, as its own file says."""
    for path in claude_files(environment, user, ".claude.json"):
        owner = untrusted.mapping(untrusted.mapping(datadir.read_json(path)).get("oauthAccount"))
        if name := untrusted.identity(owner.get("organizationUuid")):
            return name
    return ""


def account_names(environment: Mapping[str, str], user: str) -> set[str]:
    """The identities of the accounts that Claude Code's own file names: those that readings are hashed from."""
    names = set()
    for path in claude_files(environment, user, ".claude.json"):
        document = untrusted.mapping(datadir.read_json(path))
        for part in (
            untrusted.mapping(document.get("oauthAccount")),
            untrusted.mapping(document.get("cachedUsageUtilization")),
        ):
            names |= {untrusted.identity(part.get(key)) for key in ("organizationUuid", "accountUuid")}
    return names - {""}


def _over(moment: object, now: int) -> bool:
    return isinstance(moment, (int, float)) and not isinstance(moment, bool) and moment <= now


def codex(environment: Mapping[str, str], user: str) -> Credential:
    """Codex's own login: its file is not read, only whether it has changed."""
    path = os.path.join(os.path.expanduser(environment.get("CODEX_HOME") or os.path.join(user, ".codex")), "auth.json")
    try:
        status = os.stat(path)
        mark = f"{status.st_mtime_ns}:{status.st_size}"
    except OSError:
        mark = "none"
    return Credential("", "Codex's own login", mark)


def secret_path(folder: str, source: str) -> str:
    """The file of a source's secret, in the log's directory."""
    return os.path.join(folder, FOLDER, source)


def keep_secret(folder: str, source: str, secret: str) -> None:
    """Keep a secret in a private file. Raises OSError."""
    datadir.ensure_folder(os.path.join(datadir.ensure_folder(folder), FOLDER))
    datadir.replace(secret_path(folder, source), f"{secret}\n".encode())


def reference(text: str) -> str:
    """A reference as --key takes it: env:NAME or file:PATH. Raises ValueError, which quotes nothing else."""
    kind, _, rest = text.partition(":")
    if kind == "env" and _NAME.match(rest):
        return text
    if kind == "file" and rest:
        return f"file:{os.path.abspath(os.path.expanduser(rest))}"
    raise ValueError("--key takes env:NAME, file:PATH or -; other users can read a secret on a command line")


MASK = "[secret]"

# The forms of vendors' keys in 2026: a prefix, then random characters.
_SHAPES = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    r"\b(?:sk|pk|rk|gsk|xai|hf|r8|pplx|tvly|dop_v1|glpat|npm|pypi|shpat|sq0atp|whsec|lin_api|figd|key|tok)[-_][A-Za-z0-9_-]{16,}",
    r"\bgh[opusr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}",
    r"\bAIza[A-Za-z0-9_-]{30,}|\bya29\.[A-Za-z0-9._-]{20,}",
    r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",
)
_WHOLE = re.compile("|".join(_SHAPES), re.DOTALL)
_BEARER = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9+/._~=-]{12,}", re.IGNORECASE)
# A value after a name that calls it a secret.
_NAMED = re.compile(
    r"(\b[\w-]*(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential)s?[\w-]*"
    r"[\"']?\s*(?:[:=]|\bis\b)\s*[\"']?)([^\s\"',;]{4,})",
    re.IGNORECASE,
)
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@:]*:[^\s/@]+@", re.IGNORECASE)
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
# Long runs of one alphabet that hold digits and letters: hashes, keys without a prefix.
_RUN = re.compile(r"(?<![\w/.-])(?=[A-Za-z0-9+_=-]*\d)(?=[A-Za-z0-9+_=-]*[A-Za-z])[A-Za-z0-9+_=-]{28,}(?![\w/.-])")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")


def redact(text: str) -> str:
    """The text with every key, password, mail address and the like replaced by a mask."""
    text = _WHOLE.sub(MASK, text)
    text = _USER.sub(rf"\1{MASK}@", text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    text = _NAMED.sub(rf"\1{MASK}", text)
    text = _MAIL.sub(MASK, text)
    return _RUN.sub(lambda match: match[0] if _UUID.match(match[0]) else MASK, text)


def sample(text: str, most: int = 100) -> str:
    """The beginning of a text on one line, without secrets and control characters."""
    line = "".join(char if char.isprintable() else " " for char in redact(text))
    line = " ".join(line.split())
    return line if len(line) <= most else f"{line[: most - 3].rstrip()}..."
