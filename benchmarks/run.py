"""Run the benchmarks: `make bench` for all, `make bench NAME=import_cost ARGS=--json` for one.

Each script beside this one has a docstring, which is its claim, and `measure(peers) -> list[Figure]`. A bar that is
missed is printed as missed; only a benchmark that could not measure makes the command fail.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import traceback
from pathlib import Path

from benchmarks.figures import Figure, machine

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
NO_BENCHMARK = {"figures", "run"}


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NO_BENCHMARK)


def run(name: str, *, peers: bool) -> dict[str, object]:
    """Measure one benchmark."""
    figures: list[Figure] = importlib.import_module(f"benchmarks.{name}").measure(peers=peers)
    return {"name": name, "machine": machine(), "figures": [figure.as_dict() for figure in figures]}


def table(result: dict[str, object]) -> str:
    """The result for a reader."""
    lines = [f"{result['name']}"]
    for figure in result["figures"]:  # type: ignore[attr-defined]
        bar = (
            "" if figure["bar"] is None else f"  bar {figure['bar']}: {'met' if figure['met'] else 'MISSED'}"
        )
        peer = (
            f"  {figure['peer']}: {figure['peer_value']:g} {figure['unit']}"
            + ("" if figure["ratio"] is None else f", {figure['ratio']:.3g}x")
            if figure["peer"]
            else ""
        )
        reason = f"  (no peer: {figure['reason']})" if not figure["peer"] else ""
        lines.append(f"  {figure['what']}: {figure['value']:g} {figure['unit']}{bar}{peer}{reason}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", choices=names(), metavar="NAME", help=", ".join(names()))
    parser.add_argument("--json", action="store_true", help="print one JSON object for each benchmark")
    parser.add_argument(
        "--record", action="store_true", help="write the figures to benchmarks/results/NAME.json"
    )
    parser.add_argument("--no-peer", action="store_true", help="leave the peers out")
    options = parser.parse_args()
    failed = 0
    for name in [options.name] if options.name else names():
        try:
            result = run(name, peers=not options.no_peer)
        except Exception:  # noqa: BLE001  # one benchmark that cannot measure must not hide the others
            print(f"{name} could not measure:\n{traceback.format_exc()}", file=sys.stderr)
            failed += 1
            continue
        print(json.dumps(result) if options.json else table(result), flush=True)
        if options.record:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
