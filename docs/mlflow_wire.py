"""Write docs/reference/mlflow-wire.md: every endpoint of the MLflow wire, from the table that answers, and what is refused.

Run by `make docs`; `--check` changes nothing and fails when the page is stale. Endpoints, prefixes, error codes and limits are
read from the code; what they mean to a client stands here.
"""

# ruff: noqa: E501  # a row of a table is one line

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from andon.registry import models
from andon.tracking import artifacts, limits
from andon.tracking.grammar import MAX_CONDITIONS
from andon.web.mlflow import histories, runs, wire
from andon.web.mlflow.server import VERSION
from andon.web.mlflow.surface import surface
from andon.web.mlflow.wire import WireEndpoint

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference/mlflow-wire.md"
NOUNS = {
    "The server": ("version", "server-info"),
    "Experiments": ("experiments",),
    "Runs": ("runs",),
    "Histories of metrics": ("metrics",),
    "Logged models": ("logged-models",),
    "Artifacts": ("artifacts", "mpu", "get-artifact"),
    "Registered models": ("registered-models",),
    "Model versions": ("model-versions",),
}
"""Title of a table to the words by which its endpoints' paths are known."""
MEANING = {
    "BadRequest": "`runs/create` names no experiment",
    "Unsupported": "MLflow has it, Andon does not; the message says why",
    "EndpointNotFound": "nothing is at that path, or it does not take that method",
    "NotFound": "the run, experiment, model, version, tag or file that is named is not there",
    "AlreadyExists": "the name is taken",
    "Unauthenticated": "no valid credentials came with the request, and the connection is not the workspace's own user's",
    "Forbidden": "the role may not do it; or the request was sent to a foreign `Host`, or by a page of another site",
    "TooLarge": "the body is over the limit; no more than that was read",
    "Invalid": "what was given cannot be accepted; the message names the field, or the place in the filter",
    "Conflict": "it is kept from happening: a release has to wait or was refused, a version is live, a model was judged",
    "Corrupt": "stored bytes do not match their digest; none of them were sent",
    "StorageFull": "the disk is full; what was acknowledged before is safe, this was not stored",
    "Unavailable": "a part that is needed does not answer just now; trying again is safe",
}
"""Class of an error to what it says to a client; of another one the class says it itself."""


def group(endpoint: WireEndpoint) -> str:
    """The title under which an endpoint stands.

    Raises:
        SystemExit: there is none for its path.
    """
    parts = (endpoint.root + endpoint.path).split("/")
    below = parts[parts.index("mlflow") + 1 :] if "mlflow" in parts else parts
    for word in below:
        for title, words in NOUNS.items():
            if word in words:
                return title
    raise SystemExit(f"docs/mlflow_wire.py has no title for {endpoint.path}: add its noun to NOUNS")


def tables(endpoints: Sequence[WireEndpoint]) -> str:
    """A table for each noun, in the order of the titles. Methods that do the same of one path share a row."""
    rows: dict[str, dict[tuple[str, str, str], list[str]]] = {title: {} for title in NOUNS}
    for each in endpoints:
        path = (each.root + each.path).replace(":path}", "}")
        key = (path, each.permission.value, each.summary)
        rows[group(each)].setdefault(key, []).append(each.method)
    text = ""
    for title, found in rows.items():
        text += f"\n### {title}\n\n| method | path | permission | does |\n|---|---|---|---|\n"
        for (path, permission, does), methods in found.items():
            text += f"| {', '.join(methods)} | `{path}` | {permission} | {does} |\n"
    return text


def prefixes(endpoints: Iterable[WireEndpoint]) -> str:
    """Which other prefixes each root stands for."""
    used = {each.root for each in endpoints}
    return "".join(
        f"| `{root}` | {', '.join(f'`{prefix}`' for prefix in variants[1:])} |\n"
        for root, variants in wire._VARIANTS.items()
        if root in used and variants[1:]
    )


def codes() -> str:
    """Statuses and codes of errors, in the order of the statuses."""
    rows = [
        (status, code, MEANING.get(kind.__name__) or (kind.__doc__ or "").split("\n")[0].rstrip("."))
        for kind, status, code in wire._CODES
    ]
    rows.append((500, "INTERNAL_ERROR", "a fault inside; the log of the process names the request id"))
    return "".join(
        f"| {status} | `{code}` | {meaning} |\n"
        for status, code, meaning in sorted(rows, key=lambda row: row[0])
    )


def bounds() -> str:
    """What a request may hold at most."""
    rows = [
        ("body", f"{wire.BODY_LIMIT:,} bytes; `runs/log-inputs` {runs.INPUTS_LIMIT:,}; an artifact as much as the disk holds"),
        ("a batch", (f"{limits.MOST_METRICS:,} metrics, {limits.MOST_PARAMS} params, {limits.MOST_TAGS} tags, "
                    f"{limits.MOST_ENTITIES:,} of all together")),
        ("key of a metric, param or tag", (f"{limits.KEY} characters: letters and digits of any script, `_ - . : /` and spaces; "
                                          "read as a path it names itself")),
        ("value of a param, of a tag", (f"{limits.PARAM_VALUE:,} and {limits.TAG_VALUE:,} characters; what is longer is cut, "
                                       "as by MLflow's server")),
        ("name, tag of an experiment", f"{limits.EXPERIMENT_NAME} and {limits.EXPERIMENT_TAG_VALUE:,} characters; refused beyond"),
        ("name, alias, tag of a registered model", (f"{models.LONGEST_NAME}, {models.LONGEST_ALIAS} and {models.LONGEST_TEXT:,} "
                                                   "characters; refused beyond")),
        ("path of an artifact", f"{artifacts.LONGEST:,} bytes, {artifacts.LONGEST_PART} between two slashes"),
        ("page of a search", ("runs 50,000 (1,000 when nothing is said), experiments 50,000, logged models 1,000 (100), "
                             "registered models 1,000 (100), model versions 200,000 (10,000)")),
        ("page of a history", (f"as many as `max_results` says; of several runs at once {histories.MOST_POINTS:,} points of "
                              f"{histories.MOST_RUNS} runs; thinned {histories.MOST_SAMPLED:,} of each")),
        ("filter", f"{MAX_CONDITIONS} conditions; see [Search](search.md#limits)"),
    ]  # fmt: skip
    return "".join(f"| {what} | {most} |\n" for what, most in rows)


def unsupported() -> str:
    """What MLflow has and Andon answers 501: the words in the path, by the reason that is given."""
    reasons: dict[str, list[str]] = {}
    for word, reason in wire.UNSUPPORTED.items():
        reasons.setdefault(reason, []).append(f"`{word}`")
    return "".join(f"| {', '.join(words)} | {reason} |\n" for reason, words in reasons.items())


def page() -> str:
    """The whole page."""
    endpoints = surface()
    return f"""\
# The MLflow wire

Written by `make docs` from the table that answers. Andon speaks MLflow's REST interface, that of version {VERSION}, so an
unmodified client logs, searches, saves and loads with `MLFLOW_TRACKING_URI` alone:
[Use it from MLflow code](../how-to/mlflow-clients.md). How it works inside: [Tracking](../explanation/tracking.md). Filters
and orders are in [Search](search.md), permissions in [Permissions](permissions.md).

Played with the real clients 3.18.0 (all scenarios of `tests/wire`, on SQLite and on Postgres), 2.3.2 (the classic calls) and,
once and by hand, 3.17.2.

## Endpoints

{len(endpoints)} endpoints. Each path answers below every prefix that a client of some version uses:

| prefix | also |
|---|---|
{prefixes(endpoints)}{tables(endpoints)}
A HEAD is answered as its GET is, without the body. `/health` answers anybody, with `{{"status":"ok"}}`. Setting the alias or
stage that a policy names is a request to release and asks for `release`, too:
[Promote a model from MLflow code](../how-to/promote-from-mlflow.md).

Times are milliseconds since 1970. Fields that are not known are ignored; numbers may come as texts, `null` is as good as
nothing. In answers numbers of 64 bits are numbers, NaN is the text `"NaN"`, an infinity comes back as the largest number
(1.7976931348623157e308), and a field that is empty is left out, as by MLflow's server.

## Not supported

A path with one of these words in it is answered with 501, `NOT_IMPLEMENTED` and the reason. 501 is never tried again by
MLflow's client, so a script hears of it at once.

| word in the path | reason |
|---|---|
{unsupported()}
Multipart upload is answered with 501 in the words that let a client send the file in one stream. MLflow's pages are not served:
`/` is Andon's own Now page, and `andon status`, the API or any MLflow client shows runs.

## Errors

An error has `error_code` and `message`; the message says what, which thing and what to do.

| status | `error_code` | means |
|---|---|---|
{codes()}
MLflow's client comes back for minutes after 408, 429, 500, 502, 503 and 504, so only what may pass by itself is one of
these. Every answer has `X-Request-Id`.

## Limits

| of | most |
|---|---|
{bounds()}
## Who asks

| proof | how a client gives it |
|---|---|
| the connection | nothing to do: on Linux, a connection over loopback that belongs to the operating system user who runs the process is that user's. The kernel says so, not the client |
| token | `MLFLOW_TRACKING_TOKEN`, the content of `.andon/keys/token` |
| password | `MLFLOW_TRACKING_PASSWORD`, the same token; any `MLFLOW_TRACKING_USERNAME` will do |

A wrong token is 401, from whatever connection it comes. Where the kernel has no table of connections (not on Linux), and for
other users of the machine, a token is needed. In this release all three open the role `owner`, and the server listens on
loopback only. The `user_id` of a run is what the client calls itself: it is answered and searched as in MLflow, and kept as a
claim. Who really began the run is on its event in the ledger.

## When a client asks twice

MLflow's client repeats a call whose answer was lost, and nobody can tell whether the first one arrived. A test loses the answer of
each of these, on both databases, and looks at all tables afterwards.

| call | the second time |
|---|---|
| `runs/log-metric`, `log-batch`, `log-parameter`, `log-inputs`, `outputs`; every `set-tag`; params and tags of logged models | nothing changes: the same point, param, tag or input is there once |
| `update`, `delete` and `restore` of runs; `experiments/update`; PATCH and DELETE of a logged model; `model-versions/update` | nothing changes |
| PUT of an artifact with the same bytes; DELETE of an artifact | nothing changes |
| an alias or stage, also one that asks for a release; `delete-tag` of a model or version | nothing changes; the release is the same |
| `experiments/create`, `registered-models/create` | 400 `RESOURCE_ALREADY_EXISTS` |
| `delete` and `restore` of an experiment; `delete-tag` of a run, experiment or logged model; `rename` or `delete` of a model, `delete` of a version | 404 `RESOURCE_DOES_NOT_EXIST` |
| `runs/create`, POST of a logged model, `model-versions/create` | another one is made |
| `runs/log-model` | the model stands in the run's tag twice |
| `registered-models/update` | the same description is on record twice |

A training that must not lose or double anything uses [`andon.run`](../how-to/track-a-training.md), which numbers what it sends.

## What differs from MLflow

| | here | MLflow's server |
|---|---|---|
| a version's files | what lay at its source when it was registered; a later upload to the run changes no version | whatever lies at the source now |
| a file that was changed on disk | refused, 422, before the first byte is sent; for a range it was checked at most five minutes ago | sent |
| the alias and stage that a policy names | show what is live; setting them asks for a release | plain pointers |
| a registered model of which a version was judged or released | cannot be renamed or deleted | can |
| a run of a line | can be read and tagged; what it logged is the line's to say | (has no lines) |
| tags that begin with `andon.` | Andon's own to set, for runs and logged models | are tags |
| what was deleted | is removed for good by `andon delete ... --for-good` or `andon retention apply`, on record | by `mlflow gc` |
| restoring an experiment | brings back the runs that were deleted with it | brings back all its deleted runs |
| `artifact_location`, `source` | an address in a store such as S3, which is kept and never opened, or a place in the workspace; no path of the server's disk | may be a path of the server's disk |
| names of artifacts | no `\\`, `#`, control characters, drive letters or parts that are `..` to anybody, also when they are decoded again | fewer rules |
| deleting artifacts | of one run or logged model at a time | any folder |
| page tokens | belong to their search; with another filter or order they are 400 | numbers of rows to skip |
| a history in pages | in the order of steps; in one answer in the order of times | in the order of times |
| a method that a path does not take | 404 `ENDPOINT_NOT_FOUND` | 405 |
| `/health` | JSON | the text `OK` |

Beyond these, filters differ in the few cases that [Search](search.md#what-differs-from-mlflow) lists.
"""


def main(arguments: list[str]) -> None:
    text = page()
    stale = not PAGE.exists() or PAGE.read_text() != text
    if "--check" in arguments:
        if stale:
            raise SystemExit("docs/reference/mlflow-wire.md is stale: run `make docs` and commit it")
        return
    PAGE.write_text(text)
    print(f"{PAGE.relative_to(ROOT)}: {'rewritten' if stale else 'unchanged'}")


if __name__ == "__main__":
    main(sys.argv[1:])
