"""Runs the dashboard as a process, for tok-dash and tok-proxy: its session, and when new usage is imported.

The first import may take a minute: tok-sync does it in a process of its own, and the page shows that it is running.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from tokenops import (
    access,
    cli,
    config,
    dash,
    datadir,
    limit_log,
    price_installed,
    pricing,
    programs,
    proxy_routes,
    store_summaries,
    when,
)
from tokenops.session import Session

# A page that is opened shows nothing older; one that is open already gets what was new after its last answer.
OLD_MS = 60_000
NAME = proxy_routes.OWN_NAME


def session(folder: str) -> Session:
    """What answers are made from. A broken configuration is an answer too, and the next answer may be right."""

    def catalogue() -> pricing.Catalogue:
        return cli.catalogue(cli.settings())

    def as_of() -> str:
        last = datadir.last_sync(folder)
        return "" if last is None else when.stamp(last)

    kept = limit_log.memory(), store_summaries.Past(folder)
    return Session(folder, os.environ, os.path.expanduser("~"), cli.now, cli.settings, catalogue, as_of, *kept)


def chosen_token() -> str:
    """The token that the configuration gives, "" for none. Raises config.Unusable."""
    try:
        settings = cli.settings()
    except cli.Fault as fault:
        raise config.Unusable("", str(fault)) from None
    return access.configured_token(settings.get("dashboard", "admin_token"), os.environ, os.path.dirname(settings.path))


def gatherer(folder: str) -> dash.Gatherer:
    """What gathers the page."""
    source = session(folder)

    def files() -> list[str]:
        path = config.path_of(os.environ, source.home)
        with contextlib.suppress(cli.Fault):
            return [path, config.pricing_path(source.settings(), os.environ), price_installed.state_path(folder)]
        return [path]

    return dash.gatherer(source, files)


class Intake:
    """Imports what is new, bounded as in any command, and after an answer rather than before it.

    `is_silent`: the first import prints nothing, since what is printed would lie on the caller's screen.
    """

    def __init__(self, folder: str, commands: str, is_silent: bool = False) -> None:
        self.folder, self.commands, self.is_silent = folder, commands, is_silent
        self.first: subprocess.Popen[bytes] | None = None
        self.told = ""

    def before_answer(self, opened: bool) -> None:
        """Before an answer: only for a page that is being opened."""
        last = datadir.last_sync(self.folder)
        if last is None:
            self._begin()
        elif opened and not 0 <= _now() - last <= OLD_MS:  # a clock that was set back: it is still to come
            self._catch_up()

    @property
    def first_is_over(self) -> bool:
        """Whether the first import has ended, with or without success."""
        return self.first is not None and self.first.poll() is not None

    def after_answer(self) -> None:
        """After an answer."""
        if datadir.last_sync(self.folder) is not None:
            self._catch_up()

    def _catch_up(self) -> None:
        try:
            cli.catch_up(cli.Diagnostics())
        except cli.Fault as fault:
            if str(fault) != self.told:
                cli.say(str(fault))
            self.told = str(fault)

    def _begin(self) -> None:
        """Start tok-sync, which imports everything for the first time."""
        if self.first is None:
            command = os.path.join(self.commands, "tok-sync")
            with contextlib.suppress(OSError):
                self.first = subprocess.Popen(
                    [command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL if self.is_silent else None,
                    env=programs.environment(os.environ),
                )


def site(folder: str, alone: bool, commands: str) -> dash.Site:
    """The dashboard of a log, with a clock and an intake. `commands`: the directory of our commands."""
    gathering, intake = gatherer(folder), Intake(folder, commands)
    left: list[Callable[[], object]] = []

    def fresh(opened: bool) -> None:
        left[:] = [intake.after_answer, *(functools.partial(gathering.renew, name) for name in gathering.parts)]
        intake.before_answer(opened)
        gathering.tried = intake.first_is_over

    def first() -> None:
        """At the start: the page that is asked for most."""
        fresh(True)
        page.warm()

    def rest() -> bool:
        if name := gathering.pending():  # somebody waits for it
            with contextlib.suppress(cli.Fault, OSError):
                gathering.renew(name)
        elif left:
            with contextlib.suppress(cli.Fault, OSError):
                left.pop(0)()
        if not left and not gathering.pending():
            # Collect now, while no request waits, and not in the middle of an answer: a year of data takes 70 ms.
            gc.collect()
            gc.freeze()
        return bool(left or gathering.pending())

    left.append(first)
    page = dash.Site(folder, gathering, _now, alone, dash.Runtime(fresh, rest, chosen_token))
    return page


def _now() -> int:
    """The real time, in milliseconds: secrets do not depend on TOKENOPS_NOW."""
    return time.time_ns() // 1_000_000


@contextlib.contextmanager
def serving(shown: dash.Site, port: int, mdns: bool = False, host: str = "127.0.0.1") -> Iterator[str]:
    """Announce the dashboard while the block runs; yields its address. Raises OSError, config.Unusable."""
    shown.hosts = access.hosts(port, (NAME,) if mdns else ())
    shown.token()
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with access.announce(shown.folder, url, port), _mdns_name(port) if mdns else contextlib.nullcontext():
        yield url


# Programs that open an address in the user's browser.
_OPENERS = {"darwin": ("open",), "linux": ("xdg-open", "gio")}


def browser_command(platform: str, environment: Mapping[str, str], url: str) -> list[str]:
    """The command that opens an address; [] if there is no display, or if the terminal is another machine's."""
    if environment.get("SSH_CONNECTION") or environment.get("SSH_TTY"):
        return []
    if platform != "darwin" and not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
        return []
    for name in _OPENERS.get(platform, ()):
        if path := programs.path_of(name, environment.get("PATH")):
            return [path, *(["open"] if name == "gio" else []), url]
    return []


def open_browser(url: str) -> bool:
    """Open an address in the user's browser, without waiting for it; whether there is a program for that."""
    import sys

    command = browser_command(sys.platform, os.environ, url)
    with contextlib.suppress(OSError):
        if command:
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=programs.environment(os.environ),
            )
            return True
    return False


def needs_mdns() -> None:
    """Raise Fault if the name cannot be announced."""
    try:
        import zeroconf  # noqa: F401
    except ImportError:
        raise cli.Fault("--mdns needs the package zeroconf; run pip install 'tokenops[mdns]'") from None


@contextlib.contextmanager
def _mdns_name(port: int) -> Iterator[None]:
    """Announce tokenops.local on this machine's own interface: nothing is sent into a network."""
    import zeroconf

    service = zeroconf.ServiceInfo(
        "_http._tcp.local.",
        f"TokenOps {port}._http._tcp.local.",
        port,
        server=f"{NAME}.",
        parsed_addresses=["127.0.0.1"],
        properties={"path": "/dashboard"},
    )
    speaker = zeroconf.Zeroconf(interfaces=["127.0.0.1"], ip_version=zeroconf.IPVersion.V4Only)

    def register() -> None:
        try:
            speaker.register_service(service)
        except zeroconf.Error as error:
            cli.say(f"{NAME} is not announced: {type(error).__name__}; the dashboard is at http://127.0.0.1:{port}")

    threading.Thread(target=register, daemon=True).start()
    try:
        yield
    finally:
        speaker.close()
