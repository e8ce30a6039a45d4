"""Starting steps on this machine: a process for each, with an allow-list of the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from andon.core import errors
from andon.core.errors import AndonError
from andon.pipelines.step import StepResult, StepSpec

_ALLOWED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE", "VIRTUAL_ENV")
_FIXED = {"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
_BY_CODE: Mapping[str, type[AndonError]] = {
    kind.code: kind for kind in (errors.Invalid, errors.SourceError, errors.ContractBroken, errors.NotFound)
}


class StepFailed(AndonError, RuntimeError):
    """The user's code raised, or its process died."""

    code = "STEP_FAILED"
    status = 500


def run_step(
    spec: StepSpec, *, log: Path, timeout_s: float = 3600.0, environ: Mapping[str, str] = os.environ
) -> None:
    """Run a step and wait for it; its output goes to a log file.

    Raises:
        StepFailed: user code raised, the process died or took too long. The message ends with where its log is.
        AndonError: what the step itself refused (a source that is not there, an entry that cannot be imported, ...).
    """
    out = Path(spec.out)
    out.mkdir(parents=True, exist_ok=True)
    spec_file = out / "spec.json"
    spec_file.write_bytes(msgspec.json.encode(spec))
    allowed = {name: environ[name] for name in _ALLOWED if name in environ} | _FIXED
    with log.open("ab") as output:
        try:
            code = subprocess.run(
                [sys.executable, "-m", "andon.pipelines.step", str(spec_file), str(os.getpid())],
                env=allowed, cwd=out, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=timeout_s, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            raise StepFailed(
                f"the {spec.verb} step took more than {timeout_s:g} s", hint=f"see {log.name}"
            ) from None
    result = out / "result.json"
    if not result.is_file():
        raise StepFailed(
            f"the {spec.verb} step died with exit code {code}", hint=f"see {log.name} in the workspace's logs"
        )
    said = msgspec.json.decode(result.read_bytes(), type=StepResult)
    if not said.ok:
        kind = _BY_CODE.get(said.error_code or "", StepFailed)
        raise kind(
            said.message or "the step failed", hint=said.hint or f"see {log.name} in the workspace's logs"
        )
