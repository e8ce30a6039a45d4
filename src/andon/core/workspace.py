"""Where a workspace keeps its state: one folder `.andon/`, found from the current folder upwards, or named by settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from andon.core.errors import Invalid, NotFound

FOLDER = ".andon"
_SUBFOLDERS = ("blobs", "predictions", "routes", "models", "keys", "logs", "run", "scratch", "backups")


class Layout(msgspec.Struct, frozen=True):
    """The paths of a workspace. `root` is the `.andon` folder itself."""

    root: Path

    @property
    def project(self) -> Path:
        """The folder that holds `.andon`."""
        return self.root.parent

    @property
    def database(self) -> Path:
        return self.root / "andon.db"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def predictions(self) -> Path:
        """Open and not yet sealed prediction logs: `<boot, 10 hex>-<number, 6 digits>.log`."""
        return self.root / "predictions"

    @property
    def routes(self) -> Path:
        return self.root / "routes" / "routes.json"

    @property
    def overrides(self) -> Path:
        """The override journal: one signed line for each undo made at a gateway."""
        return self.root / "routes" / "overrides.jsonl"

    @property
    def models(self) -> Path:
        """The gateway's local copies of model packages, one folder for each digest."""
        return self.root / "models"

    @property
    def route_key(self) -> Path:
        return self.root / "keys" / "route.key"

    @property
    def token(self) -> Path:
        """The 0600 file whose holder is the workspace's own person."""
        return self.root / "keys" / "token"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Sockets, pid files and switches of the running processes."""
        return self.root / "run"

    @property
    def scratch(self) -> Path:
        """Folders of steps that run now; safe to delete when nothing runs."""
        return self.root / "scratch"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    def create(self) -> Layout:
        """Make the folders, private to this user and to no version control. Making them again changes nothing."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _SUBFOLDERS:
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        if not (ignore := self.root / ".gitignore").exists():
            ignore.write_text("*\n")
        return self


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment may change.

    Attributes:
        database_url: where the metadata is; None is SQLite in the workspace's folder.
        host: address to listen on; anything but loopback is refused until access control is set up.
        control_port, gateway_port: TCP ports; 0 takes a free one.
        gateways: number of gateway processes, >= 1.
        durability: what a prediction survives before it is answered: `process` (kill -9) or `disk` (power cut).
        window_s: longest time between two steps of the reconciler, seconds.
    """

    database_url: str | None = None
    host: str = "127.0.0.1"
    control_port: int = 5000
    gateway_port: int = 8080
    gateways: int = 1
    durability: str = "process"
    window_s: float = 0.25


_MOST = 65_535  # ports end there; no machine here needs more gateways
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def settings_from(environ: Mapping[str, str]) -> Settings:
    """Settings from ANDON_DATABASE_URL, _HOST, _PORT, _GATEWAY_PORT, _GATEWAYS and _DURABILITY.

    Raises:
        Invalid: a value is not what its name asks for.

    >>> settings_from({"ANDON_PORT": "5001"}).control_port
    5001
    """
    settings = Settings(
        database_url=environ.get("ANDON_DATABASE_URL") or None,
        host=environ.get("ANDON_HOST", "127.0.0.1"),
        control_port=_integer(environ, "ANDON_PORT", 5000),
        gateway_port=_integer(environ, "ANDON_GATEWAY_PORT", 8080),
        gateways=_integer(environ, "ANDON_GATEWAYS", 1),
        durability=environ.get("ANDON_DURABILITY", "process"),
    )
    if settings.durability not in ("process", "disk"):
        raise Invalid(f"ANDON_DURABILITY is {settings.durability!r}", hint="it is 'process' or 'disk'")
    if settings.host not in LOOPBACK:
        raise Invalid(
            f"ANDON_HOST is {settings.host!r}, which other machines can reach",
            hint="this release serves one person on one machine: listen on 127.0.0.1 and put an authenticating proxy in front",
        )
    if settings.gateways < 1:
        raise Invalid(f"ANDON_GATEWAYS is {settings.gateways}", hint="at least one gateway is needed")
    return settings


def find_workspace(start: Path, environ: Mapping[str, str] = os.environ) -> Layout:
    """The workspace of `ANDON_HOME`, or the nearest `.andon` in a folder or above it.

    Raises:
        NotFound: there is none.
    """
    if home := environ.get("ANDON_HOME"):
        if not Path(home).is_dir():
            raise NotFound(
                f"ANDON_HOME is {home!r}, and no such folder exists",
                hint="it names a workspace's .andon folder",
            )
        return Layout(Path(home).absolute())
    for folder in (start.absolute(), *start.absolute().parents):
        if (folder / FOLDER).is_dir():
            return Layout(folder / FOLDER)
    raise NotFound(
        f"no workspace in {start} or above it",
        hint="make one with 'andon init NAME', or go to a project's folder",
    )


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name)
    if text is None:
        return default
    if not text.isdigit() or int(text) > _MOST:
        raise Invalid(f"{name} is {text!r}", hint=f"it is a whole number from 0 to {_MOST}")
    return int(text)
