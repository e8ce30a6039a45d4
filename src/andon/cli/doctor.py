"""`andon doctor`: what is wrong with an installation or a workspace, and what to do. Looks, changes nothing."""

from __future__ import annotations

import errno
import importlib.util
import shutil
import socket
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from andon.cli.supervisor import running
from andon.core.errors import AndonError, NotFound
from andon.core.policy import FILE, read_policy
from andon.core.workspace import Layout, find_workspace, settings_from
from andon.governance.audit import verify
from andon.pipelines import gateways
from andon.pipelines.workspace import OpenWorkspace
from andon.registry.packaging import install

_LOW_DISK = 2 * 2**30


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    what: str
    verdict: Literal["ok", "warn", "fail"]
    advice: str = ""


def examine(folder: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Look at the installation, and at the workspace of a folder when there is one."""
    findings = list(_installation())
    try:
        layout = find_workspace(folder, environ)
    except NotFound as error:
        return [*findings, Finding(what="workspace", verdict="warn", advice=str(error))]
    return [*findings, *_policy(layout), *_workspace(layout, environ)]


def _installation() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info < (3, 11)
    yield Finding(
        what=f"Python {version}",
        verdict="fail" if old else "ok",
        advice="Andon needs 3.11 or newer" if old else "",
    )
    for module, extra in (("lightgbm", "lightgbm"), ("psycopg", "postgres")):
        there = importlib.util.find_spec(module) is not None
        advice = "" if there else f'for it run: pip install "andon[{extra}]"'
        yield Finding(
            what=f"{module} {'is' if there else 'is not'} installed",
            verdict="ok" if there else "warn",
            advice=advice,
        )


def _policy(layout: Layout) -> Iterator[Finding]:
    if not (layout.project / FILE).is_file():
        return
    try:
        policy = read_policy(layout.project)
    except AndonError as error:
        yield Finding(what=FILE, verdict="fail", advice=str(error))
        return
    yield Finding(what=f"{FILE} of line {policy.name!r}", verdict="ok")


def _workspace(layout: Layout, environ: Mapping[str, str]) -> Iterator[Finding]:
    free = shutil.disk_usage(layout.root).free
    room = f"{free / 2**30:.1f} GiB free"
    yield Finding(
        what=room,
        verdict="ok" if free > _LOW_DISK else "warn",
        advice="" if free > _LOW_DISK else "make room",
    )
    for path in (layout.token, layout.route_key):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield Finding(
                what=f"{path.name} can be read by others", verdict="fail", advice=f"run: chmod 600 {path}"
            )
    said = running(layout)
    yield Finding(what=f"running (pid {said.pid}, {said.control})" if said else "not running", verdict="ok")
    if said is None:
        yield from _ports(environ)
    for state in gateways.states(layout):
        advice = "" if state.reachable else "it is gone or hangs; 'andon up' starts it again"
        yield Finding(what=state.name, verdict="ok" if state.reachable else "warn", advice=advice)
    try:
        with OpenWorkspace(layout, settings_from(environ)) as ws:
            report = verify(ws.store)
            yield Finding(what=f"ledger: {report.events} events, chain whole", verdict="ok")
            yield from _models(ws)
    except AndonError as error:
        yield Finding(what="database", verdict="fail", advice=str(error))


def _ports(environ: Mapping[str, str]) -> Iterator[Finding]:
    settings = settings_from(environ)
    for port, name in ((settings.control_port, "ANDON_PORT"), (settings.gateway_port, "ANDON_GATEWAY_PORT")):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
                taken = False
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
        advice = f"stop what listens there, or set {name}" if taken else ""
        yield Finding(
            what=f"port {port} is {'in use' if taken else 'free'}",
            verdict="warn" if taken else "ok",
            advice=advice,
        )


def _models(ws: OpenWorkspace) -> Iterator[Finding]:
    """Every model that a route needs is here and whole."""
    live = ws.store.read(lambda reader: reader.releases.select({"state": ["live", "rolling"]}))
    for release in live:
        name = f"{release.model} v{release.number} on {release.endpoint}"
        try:
            install(ws.blobs, release.version_digest, ws.layout.models)
        except AndonError as error:
            yield Finding(what=name, verdict="fail", advice=f"{error}; restore it from a backup")
        else:
            yield Finding(what=name, verdict="ok")
