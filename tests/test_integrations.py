"""docs/integrations.md: its tables are what the registries say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from conftest import ROOT
from tokenops import catalog, plans, proxy_routes, read_clients, setup_hosts

PAGE = ROOT / "docs/integrations.md"
_PROXY = re.compile(r"[A-Z]{3,}[A-Z_]*_URL|\w+_base_url|baseURL")


def table(titles: list[str], rows: list[list[str]]) -> str:
    """Rows as Markdown."""
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)])


def logs_of(client: str) -> str:
    """What tok-sync reads of a client."""
    given = [f"`{one.name}`: {one.gives}" for one in read_clients.CLIENTS if one.client == client and one.homes]
    return "; ".join(given) or "none"


def meters_of(client: str) -> str:
    """What tok-poll can ask about the plans that a client uses up; a star where it asks for consent first."""
    vendors = {plan.provider for plan in plans.all_plans().values() if client in plan.clients}
    asked = catalog.load("pollers")["pollers"].items()
    found = [f"`{name}`{'*' if about['consent'] else ''}" for name, about in asked if about["provider"] in vendors]
    return ", ".join(found) or "none"


def matrix() -> str:
    """Client by plane."""
    rows, shown = [], set()
    for host in setup_hosts.HOSTS:
        proxied = dict.fromkeys(f"`{name}`" for line in host.proxy for name in _PROXY.findall(line))
        server = (
            f"`{host.config.rpartition('/')[2]}`"
            if host.config
            else {"claude-code": "`claude mcp add`"}.get(host.name, "see below")
        )
        line = "`tok-statusline`" if host.name == "claude-code" else "none"
        rows.append(
            [
                host.display,
                logs_of(host.client),
                ", ".join(proxied) or "no",
                line,
                meters_of(host.plans or host.client),
                server,
            ]
        )
        shown.add(host.client)
    for name in dict.fromkeys(one.client for one in read_clients.CLIENTS if one.homes and one.client not in shown):
        rows.append([name, logs_of(name), "base URL", "none", meters_of(name), "its settings"])
    for one in read_clients.UNCOUNTED:
        if one.name not in {host.client for host in setup_hosts.HOSTS}:
            rows.append([one.name, "none", "base URL", "none", meters_of(one.name), "its settings"])
    return table(
        ["client", "logs (`tok-sync`)", "proxy", "status line", "vendor's meters (`tok-poll`)", "MCP (`tok-mcp`)"], rows
    )


def programs() -> str:
    """Provider by plane, for programs that use an SDK."""
    asked = catalog.load("pollers")["pollers"].items()
    rows = []
    for name, about in proxy_routes.presets().items():
        meters = [
            f"`{source}`{'*' if one['consent'] else ''}"
            for source, one in asked
            if one["provider"] == about.get("bills", name)
        ]
        variable = f"`{about['env']}=.../{name}{about['path']}`" if "env" in about else f"`/{name}/...`"
        rows.append([name, variable, ", ".join(meters) or "none"])
    return table(["provider", "through the proxy", "vendor's meters (`tok-poll`)"], rows)


@pytest.mark.parametrize("made", [matrix, programs])
def test_the_tables_are_the_registries(made: object) -> None:
    wanted = made()  # type: ignore[operator]
    assert wanted in PAGE.read_text(), f"write this into docs/integrations.md:\n{wanted}"


def test_every_host_that_has_a_note_says_it_here() -> None:
    for host in setup_hosts.HOSTS:
        assert not host.note or host.note in PAGE.read_text().replace("\n  ", " "), host.name


def test_make_man(tmp_path: object) -> None:
    if not shutil.which("make"):
        pytest.skip("make is not on this machine")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", "-n", "man"], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1].split()[1:] == [b"tools/share.py", b"share"]
