"""From view structs to HTML: the template environment, its filters and the static files, all read once at start.

Static files are looked up by name in a table made at start: nothing a client sends is ever joined to a path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    "LICENSE": "text/plain; charset=utf-8",
}
_UI = "andon.web.ui"
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Static:
    """A static file: its bytes, type, and the path that carries a hash of its content."""

    data: bytes
    content_type: str
    address: str


@cache
def statics() -> Mapping[str, Static]:
    """Every static file by its name under `/static/`, with and without its hash.

    >>> "andon.css" in statics()
    True
    """
    found: dict[str, Static] = {}
    for name, data in _walk(files(_UI) / "static", ""):
        content_type = next((kind for ending, kind in _TYPES.items() if name.endswith(ending)), None)
        if content_type is None:
            continue
        address = f"{hashlib.sha256(data).hexdigest()[:12]}/{name}"
        found[name] = found[address] = Static(data, content_type, f"/static/{address}")
    return MappingProxyType(found)


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        else:
            found.append((prefix + entry.name, entry.read_bytes()))
    return found


def page(template: str, **context: object) -> str:
    """A template with its context, as HTML. Every value is escaped; a name that is missing is an error."""
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> Environment:
    folder = files(_UI) / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {use.__name__: _unbroken(use) for use in (stamp, share, count, rate, ms, odds)} | {
        "at": at
    }
    environment.globals["static"] = lambda name: statics()[name].address
    return environment


def _unbroken(words: Callable[..., str]) -> Callable[..., str]:
    """The same words, never parted at the end of a line."""
    return lambda *values: words(*values).replace(" ", "\u00a0")


def ago(then: datetime, now: datetime) -> str:
    """How long ago, in the largest unit that fits; seconds by tens, so that a page that is watched stands still.

    >>> ago(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 3, 20, tzinfo=UTC))
    '3 min ago'
    """
    seconds = int((now - then).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return "just now" if seconds < 10 else f"{seconds // 10 * 10} s ago"


def stamp(then: datetime) -> str:
    """The absolute time, to the second.

    >>> stamp(datetime(2026, 1, 1, 0, 3, 20, tzinfo=UTC))
    '2026-01-01 00:03:20 UTC'
    """
    return then.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(then: datetime) -> str:
    """The absolute time for machines."""
    return then.astimezone(UTC).isoformat().replace("+00:00", "Z")


def at(then: datetime, now: datetime) -> Markup:
    """A time as a person reads it, with the absolute one to hover and for screen readers."""
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        iso(then), stamp(then), _unbroken(ago)(then, now)
    )


def share(value: float) -> str:
    """A share as percent, with as many digits as it takes to see it.

    >>> share(0.5), share(0.0), share(0.0123), share(0.00042)
    ('50 %', '0 %', '1.2 %', '0.04 %')
    """
    percent = value * 100
    for floor, digits in ((9.95, 0), (0.95, 1), (0.005, 2)):
        if percent >= floor:
            text = f"{percent:.{digits}f}"
            return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"
    return "0 %" if percent == 0 else "< 0.01 %"


def odds(log10: float | None) -> str:
    """Evidence, given as log10, as odds to one.

    >>> odds(0.0), odds(1.30103), odds(7.2), odds(-2.0)
    ('1 to 1', '20 to 1', '10⁷ to 1', 'none')
    """
    if log10 is None or log10 < 0:
        return "none"
    if log10 < 4:
        return f"{10**log10:,.0f} to 1"
    return f"10{str(int(log10)).translate(_RAISED)} to 1"


def count(value: int) -> str:
    """A count with groups of three.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{value:,}"


def rate(value: float) -> str:
    """A number of things a second.

    >>> rate(1234.5), rate(12.0), rate(0.3)
    ('1,234', '12', '0.3')
    """
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def ms(value: float) -> str:
    """Milliseconds with two or three significant digits.

    >>> ms(0.1189), ms(12.3), ms(1234.5)
    ('0.12 ms', '12 ms', '1,234 ms')
    """
    return f"{value:.2f} ms" if value < 1 else f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"
