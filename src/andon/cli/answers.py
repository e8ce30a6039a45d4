"""Commands that answer: `status`, `why`, `impact`, `audit verify`."""

from __future__ import annotations

import click

from andon.cli import output
from andon.cli.open import open_here
from andon.cli.supervisor import running
from andon.governance.audit import verify as verify_ledger
from andon.pipelines.workspace import EndpointStatus, Status


@click.command()
@output.json_option
@output.speaks
def status(*, as_json: bool) -> None:
    """What is live, what runs, what is wrong.

    \b
    andon status
    andon status --json | jq '.endpoints[].live.number'
    """
    with open_here() as ws:
        said = ws.status()
        text = _status_text(said)
        if running(ws.layout) is None:
            text += "\n  nothing runs here: start it with 'andon up'"
    output.show(said, text, as_json)


@click.command()
@click.argument("prediction_id")
@output.json_option
@output.speaks
def why(prediction_id: str, *, as_json: bool) -> None:
    """Which data, code, model and person made a prediction.

    PREDICTION_ID comes with every answer.

    \b
    andon why 0199a1b2-...
    """
    with open_here() as ws:
        said = ws.why(prediction_id)
    output.show(said, said.text(), as_json)


@click.command()
@click.argument("what")
@output.json_option
@output.speaks
def impact(what: str, *, as_json: bool) -> None:
    """Everything that a thing was needed for, down to the number of predictions.

    WHAT is DATASET@NUMBER, MODEL/NUMBER, a run id or KIND:ID.

    \b
    andon impact customers@3
    andon impact churn/2
    """
    with open_here() as ws:
        said = ws.impact(what)
    output.show(said, said.text(), as_json)


@click.command()
@output.json_option
@output.speaks
def verify(*, as_json: bool) -> None:
    """Check every event of the ledger: nothing changed, dropped, reordered or inserted."""
    with open_here() as ws:
        report = verify_ledger(ws.store)
    text = f"the ledger is whole: {report.events} events, head {report.head}"
    output.show(report, text, as_json)


def _status_text(said: Status) -> str:
    lines = [f"workspace {said.workspace} (epoch {said.epoch}, {said.events} events)"]
    lines += [f"  {endpoint.endpoint}: {_serves(endpoint)}" for endpoint in said.endpoints]
    lines += [f"  run {run.id[:13]} of {run.line}: {run.error or run.state}" for run in said.runs[:5]]
    lines += [f"  alert {alert.monitor}: {alert.summary}" for alert in said.alerts]
    lines += [f"  {one.name}: {'answers' if one.reachable else 'does not answer'}" for one in said.gateways]
    if not said.lines:
        lines.append("  no line yet: write an andon.toml and run 'andon run'")
    return "\n".join(lines)


def _serves(endpoint: EndpointStatus) -> str:
    if endpoint.live is None:
        return "nothing is live"
    text = f"{endpoint.live.model} v{endpoint.live.number} is live"
    if endpoint.candidate is not None:
        text += f", v{endpoint.candidate.number} gets {endpoint.candidate_percent} %"
    return text + (", held until 'andon release'" if endpoint.held else "")
