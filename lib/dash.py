"""Answers a request to the dashboard: the request's head in, a reply out, without sockets or a clock.

Access is checked first: without the token every request gets the same answer, whatever its path, method or host. Paths
must match exactly: nothing is decoded, shortened or guessed.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

import orjson

from tokenops import access, config, dash_api, dash_findings, dash_page, dash_query, dash_sheet, dash_view, http1, store_days
from tokenops.http1 import Headers, Request, field
from tokenops.proxy_routes import Reply
from tokenops.session import BadRequest, Fault, NotFound, Session
from tokenops.store_days import Files

Gatherer = dash_view.Gatherer
PAGE, CSV = dash_query.PAGE, dash_query.CSV
ASSETS = {"/dashboard/page.css": "text/css", "/dashboard/page.js": "text/javascript"}
PUBLIC = (b"/healthz", b"/readyz", b"/version")
_JSON = "application/json"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS = [
    field(b"Content-Security-Policy", _POLICY.encode()),
    field(b"X-Content-Type-Options", b"nosniff"),
    field(b"X-Frame-Options", b"DENY"),
    field(b"Referrer-Policy", b"no-referrer"),
    field(b"Cross-Origin-Opener-Policy", b"same-origin"),
    field(b"Cross-Origin-Resource-Policy", b"same-origin"),
]
# A smaller body is not worth compressing.
_LEAST_PACKED = 1400
MOST_KEPT = 32


class PageRequest(NamedTuple):
    """The parts of a request that the dashboard reads."""

    method: bytes
    path: str
    query: list[tuple[str, str]]
    headers: Headers
    authority: str  # of a target that names one

    def first(self, name: bytes) -> str:
        """The first value of a header, "" for none."""
        return next(iter(http1.values(self.headers, name)), b"").decode("latin-1")

    def parameter(self, name: str) -> str:
        """The first value of a parameter, "" for none."""
        return next((value for key, value in self.query if key == name), "")

    @property
    def html(self) -> bool:
        """Whether the answer is for a person."""
        return "text/html" in self.first(b"accept")


def page_request(head: Request) -> PageRequest:
    """Parse a request's head."""
    target, authority = head.target.decode("latin-1"), ""
    if not target.startswith("/") and "://" in target:
        authority, slash, rest = target.partition("://")[2].partition("/")
        target = f"{slash}{rest}"
    path, _, query = target.partition("?")
    return PageRequest(
        head.method, path, parse_qsl(query, keep_blank_values=True, max_num_fields=None), head.headers, authority
    )


class Runtime(NamedTuple):
    """What the process does for a site: it imports what is new, before and after an answer, and reads the user's token.

    `fresh`: called with whether a page is being opened; `token`: "" if the token in the file counts.
    """

    fresh: Callable[[bool], None] = lambda opened: None
    rest: Callable[[], bool] = lambda: False
    token: Callable[[], str] = lambda: ""


NO_RUNTIME = Runtime()


def gatherer(session: Session, files: Callable[[], list[str]]) -> Gatherer:
    """What gathers the page of a log. `files`: the files that answers are made from, in addition to the log."""
    parts = {
        dash_findings.SCORECARD: dash_findings.card_of,
        dash_findings.FINDINGS: dash_findings.latest_findings,
    }
    return Gatherer(session, files, parts, of_no_span=(dash_findings.FINDINGS,))


def standalone(gatherer: Gatherer, query: Mapping[str, str]) -> tuple[bytes, bool]:
    """The page as a file of its own, and whether something in it has no price. Raises session.Fault, OSError."""
    view = gatherer.view(dash_query.parse(query), is_patient=True)
    return dash_page.standalone(view), bool(view.spent.total.get("unpriced"))


class Site:
    """The dashboard of one log. `hosts`: the valid values of Host; `clock`: the real time in milliseconds, for secrets.

    `alone`: every path but the public ones is its.
    """

    def __init__(
        self, folder: str, gatherer: Gatherer, clock: Callable[[], int], alone: bool = True, runtime: Runtime = NO_RUNTIME
    ) -> None:
        self.folder, self.gatherer, self.clock, self.alone, self.runtime = folder, gatherer, clock, alone, runtime
        self.hosts: frozenset[str] = frozenset()
        self.throttle = access.Throttle()
        self.has_rested = False  # since the last request of an open page
        self.kept: dict[tuple[str, str], tuple[str, Headers, bytes, bytes]] = {}

    def token(self) -> str:
        """The token that counts. Raises config.Unusable, OSError."""
        return self.runtime.token() or access.token(self.folder)

    def warm(self) -> None:
        """Compute the most requested page in advance. Raises session.Fault, OSError."""
        self.gatherer.view(dash_query.Ask(), is_patient=True)

    def rest(self) -> bool:
        """Do one piece of work while there are no requests; whether there is more."""
        self.has_rested = True
        return self.runtime.rest()

    def owns(self, path: bytes) -> bool:
        """Whether the dashboard answers this path."""
        if self.alone:
            return path not in PUBLIC
        return path in (b"/dashboard", b"/api") or path.startswith((b"/dashboard/", b"/api/"))

    def answer(self, head: Request) -> Reply:
        """The answer to a request. Raises OSError."""
        try:
            request = page_request(head)
        except ValueError:
            return self._refusal(PageRequest(head.method, "", [], head.headers, ""), 401, *_WHO)
        trusted = self._is_trusted(request)
        try:
            cookie = self._new_cookie(request, trusted)
        except config.Unusable as error:
            return self._refusal(request, 503, str(error), "then ask again")
        if cookie is None:
            wait = self.throttle.wait_ms(self.clock()) if self._is_guess(request) else 0
            if wait is None:
                return self._refusal(request, 429, "too many wrong tokens at once", "wait a minute")
            return self._refusal(request, 401, *_WHO)._replace(wait_ms=wait)
        if not trusted:
            return self._refusal(
                request, 403, "this Host or Origin is not the dashboard's", "open it by 127.0.0.1, with its port"
            )
        return self._for_bearer(request, cookie)

    # Who asks.

    def _is_trusted(self, request: PageRequest) -> bool:
        """Whether a request was meant for this site: no page of another site sends it, and no other name leads to it."""
        hosts = [value.decode("latin-1").lower() for value in http1.values(request.headers, b"host")]
        hosts += [request.authority.lower()] if request.authority else []
        allowed = access.origins(self.hosts)
        origins = [value.decode("latin-1").lower() for value in http1.values(request.headers, b"origin")]
        if not hosts or not all(host in self.hosts for host in hosts) or not all(origin in allowed for origin in origins):
            return False
        if any(value not in (b"same-origin", b"none") for value in http1.values(request.headers, b"sec-fetch-site")):
            # A link that a user follows is fine; what another page fetches, frames or sends is not.
            return request.first(b"sec-fetch-mode") == "navigate" and request.first(b"sec-fetch-dest") == "document"
        return True

    def _new_cookie(self, request: PageRequest, trusted: bool) -> str | None:
        """None if the request is not authorised; else a new cookie, "" if none is due. Raises config.Unusable, OSError."""
        token, now = self.token(), self.clock()
        bearer = request.first(b"authorization").partition(" ")
        if bearer[0].lower() == "bearer" and access.same(bearer[2].strip(), token):
            return ""
        if (secret := request.parameter("token")) and access.same(secret, token):
            return access.cookie(token, now)
        left = max((access.cookie_left(value, token, now) for value in _cookies(request)), default=0)
        if left:
            return access.cookie(token, now) if left < access.COOKIE_S // 2 else ""
        if (secret := request.parameter("ticket")) and trusted and self._opens(request):
            return access.cookie(token, now) if access.redeem(self.folder, secret, now) else None
        return None

    def _opens(self, request: PageRequest) -> bool:
        """Whether a ticket is used to open the page, and not by a program that previews links."""
        looks = "prefetch" in (request.first(b"sec-purpose") + request.first(b"purpose")).lower()
        return request.method == b"GET" and request.path == PAGE and not looks

    def _is_guess(self, request: PageRequest) -> bool:
        """Whether the request has a secret, which was wrong. An expired cookie is not a guess."""
        return bool(request.first(b"authorization") or request.parameter("token") or request.parameter("ticket"))

    # What is answered.

    def _for_bearer(self, request: PageRequest, cookie: str) -> Reply:
        """The reply to an authorised request."""
        if request.method not in (b"GET", b"HEAD"):
            reply = self._refusal(request, 405, "only GET and HEAD are supported", "the dashboard only reads")
            return reply._replace(headers=[*reply.headers, field(b"Allow", b"GET, HEAD")])
        path, query = request.path, [(name, value) for name, value in request.query if name not in ("token", "ticket")]
        cookies = [field(b"Set-Cookie", value) for value in access.set_cookie(cookie)] if cookie else []
        if len(query) != len(request.query) or path in ("/", "/dashboard/"):
            if not _exists(path):
                return self._refusal(request, 404, *_NOTHING)
            target = PAGE if path in ("/", "/dashboard/") else path
            clean = f"{target}?{urlencode(query)}" if query else target
            location = field(b"Location", clean.encode())
            return Reply(303, [*_ALWAYS, field(b"Cache-Control", b"no-store"), location, *cookies], b"")
        reply = self._data(request, path, dict(query))
        return reply._replace(headers=[*reply.headers, *cookies]) if cookies else reply

    def _data(self, request: PageRequest, path: str, query: dict[str, str]) -> Reply:
        if path in ASSETS:
            return self._asset(request, path)
        if path not in (PAGE, CSV) and not (path.startswith(dash_api.ROOT) and dash_api.exists(path[len(dash_api.ROOT) :])):
            return self._refusal(request, 404, *_NOTHING)
        try:
            self.runtime.fresh(path in (PAGE, CSV) and not request.first(b"if-none-match"))
            return self._fresh(request, path, query)
        except NotFound as fault:
            return self._refusal(request, 404, str(fault), "see /dashboard" if path == PAGE else "see /api/workflows")
        except BadRequest as fault:
            return self._refusal(request, 400, str(fault), "docs/dashboard.md lists the parameters")
        except dash_api.Unavailable as fault:
            return self._refusal(request, 503, str(fault), fault.hint)
        except Fault as fault:
            return self._refusal(request, 503, str(fault), "correct it, then ask again")
        except OSError as error:
            prefix = f"{error.filename}: " if error.filename else ""
            return self._refusal(request, 503, f"{prefix}{error.strerror}", "run tok-status to see what is wrong")
        except (ValueError, ArithmeticError, RecursionError):
            if not query and path in (PAGE, *(f"{dash_api.ROOT}{name}" for name in dash_api.ROUTES)):
                raise  # a fault of ours, not of what was asked
            return self._refusal(request, 400, "a parameter has no meaning here", "docs/dashboard.md lists the parameters")

    def _fresh(self, request: PageRequest, path: str, query: dict[str, str]) -> Reply:
        """The data, or 304 if nothing has changed since the last request."""
        if path == PAGE and request.first(b"if-none-match"):
            # A page that waits for a slow part has come back. If there is no time between its requests, it is computed now.
            if not self.has_rested and (name := self.gatherer.pending()):
                self.gatherer.renew(name)
            self.has_rested = False
        files = store_days.files_of(self.folder)
        state = self.gatherer.state(files)
        key = (path, urlencode(sorted(query.items())))
        etag = _etag(state, *key)
        if _matches(request, etag):
            return Reply(304, [*_ALWAYS, field(b"ETag", etag.encode()), field(b"Cache-Control", b"no-store")], b"")
        cached = self.kept.pop(key, None)
        if cached is None or cached[0] != etag:
            more: Headers = []
            if path == PAGE:
                kind, body = "text/html", dash_page.page(self.gatherer.page(dash_query.parse(query), files), etag)
            elif path == CSV:
                kind, body, more = self._csv(query, files)
            else:
                value = dash_api.answer(self.gatherer, path[len(dash_api.ROOT) :], query)
                kind, body = _JSON, orjson.dumps(value) + b"\n"
            etag = _etag(self.gatherer.state(files), *key)  # the answer may hold newer data
            headers = [*_ALWAYS, *_content_type(kind), field(b"Cache-Control", b"no-store"), field(b"ETag", etag.encode())]
            headers += more
            cached = (etag, headers, body, gzip.compress(body, 4, mtime=0))
        self.kept[key] = cached
        while len(self.kept) > MOST_KEPT:
            del self.kept[next(iter(self.kept))]
        return _reply(request, 200, *cached[1:])

    def _csv(self, query: dict[str, str], files: Files) -> tuple[str, bytes, Headers]:
        """A table of a page as CSV. Raises BadRequest, NotFound, Fault, OSError."""
        name = query.pop("table", "")
        ask = dash_query.parse(query)
        page = self.gatherer.page(ask, files, is_patient=name in dash_page.SLOW_TABLES)
        sheets = {sheet.name: sheet for sheet in dash_page.sheets(page)}
        if name not in sheets:
            raise BadRequest(f"there is no table {name[:40]!r} here; choose from {', '.join(sheets)}")
        disposition = field(b"Content-Disposition", f'attachment; filename="tokenops-{name}.csv"'.encode())
        return "text/csv", dash_sheet.csv(sheets[name], ask).encode(), [disposition]

    def _asset(self, request: PageRequest, path: str) -> Reply:
        name = path.rpartition("/")[2]
        body, version = dash_page.asset(name), dash_page.version(name)
        etag = _etag(version, path)
        keep = b"private, max-age=31536000, immutable" if request.parameter("v") == version else b"private, no-cache"
        headers = [*_ALWAYS, field(b"ETag", etag.encode()), field(b"Cache-Control", keep)]
        if _matches(request, etag):
            return Reply(304, headers, b"")
        return _reply(request, 200, [*headers, *_content_type(ASSETS[path])], body, _gzip_asset(name))

    def _refusal(self, request: PageRequest, status: int, error: str, hint: str) -> Reply:
        """A reply that says why there is no answer, for a person or a program."""
        again = False
        if status == 401 and request.first(b"sec-fetch-site") == "cross-site":
            # Browsers omit a strict cookie after a link on another site; a second request brings it.
            again = (
                request.first(b"sec-fetch-mode") == "navigate" and request.method == b"GET" and not self._is_guess(request)
            )
        if request.html:
            kind, body = "text/html", dash_page.refusal(status, error, hint, again)
        else:
            kind, body = _JSON, orjson.dumps({"error": error, "hint": hint}) + b"\n"
        headers = [*_ALWAYS, *_content_type(kind), field(b"Cache-Control", b"no-store")]
        if request.html:
            own_style = _POLICY.replace("style-src 'self'", f"style-src 'self' 'sha256-{dash_page.REFUSAL_HASH}'")
            headers[0] = field(b"Content-Security-Policy", own_style.encode())
        if status == 401:
            headers.append(field(b"WWW-Authenticate", b'Bearer realm="tokenops"'))
        return Reply(status, headers, body)


_WHO = ("this needs the dashboard's token", "run tok-dash url and open the link that it prints")
_NOTHING = ("there is nothing at this address", "the page is /dashboard; docs/dashboard.md lists the API")


@functools.cache
def _gzip_asset(name: str) -> bytes:
    return gzip.compress(dash_page.asset(name), 9, mtime=0)


def _exists(path: str) -> bool:
    """Whether there is something at a path."""
    api = path.startswith(dash_api.ROOT) and dash_api.exists(path[len(dash_api.ROOT) :])
    return path in (PAGE, CSV, "/", "/dashboard/") or path in ASSETS or api


def _cookies(request: PageRequest) -> list[str]:
    """The values of our cookie; a browser may send several of one name."""
    cookies = []
    for header in http1.values(request.headers, b"cookie"):
        for part in header.decode("latin-1").split(";"):
            name, _, value = part.strip().partition("=")
            if name == access.COOKIE:
                cookies.append(value.strip('"'))
    return cookies


def _etag(*parts: str) -> str:
    return f'W/"{hashlib.blake2b(orjson.dumps(parts), digest_size=12).hexdigest()}"'


def _matches(request: PageRequest, etag: str) -> bool:
    etags = [
        tag.strip()
        for value in http1.values(request.headers, b"if-none-match")
        for tag in value.decode("latin-1").split(",")
    ]
    return any(tag.removeprefix("W/") == etag.removeprefix("W/") for tag in etags)


def _content_type(kind: str) -> Headers:
    return [field(b"Content-Type", f"{kind}; charset=utf-8".encode() if kind != _JSON else kind.encode())]


def _reply(request: PageRequest, status: int, headers: Headers, body: bytes, packed: bytes) -> Reply:
    """The reply, compressed if the client accepts that."""
    codings: Mapping[str, str] = {
        name.strip(): rest.replace(" ", "")
        for name, _, rest in (part.partition(";") for part in request.first(b"accept-encoding").split(","))
    }
    takes = "gzip" in codings and codings["gzip"] not in ("q=0", "q=0.0")
    vary = field(b"Vary", b"Accept-Encoding")
    if takes and len(body) > _LEAST_PACKED:
        return Reply(status, [*headers, vary, field(b"Content-Encoding", b"gzip")], packed)
    return Reply(status, [*headers, vary], body)
