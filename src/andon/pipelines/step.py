"""One step of a run, in a process of its own: `python -m andon.pipelines.step SPEC PARENT`.

User code runs here and nowhere else. The process sees an allow-list of environment variables, the code snapshot, its input
files and an output folder; no database and no credentials. It ends with its parent. What it has to say is in `result.json`.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import polars as pl

from andon.core.errors import AndonError, Invalid
from andon.core.policy import SourcePolicy
from andon.data.sources import read_source
from andon.registry.packaging import encode_expression

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


class StepSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a step is to do; paths are absolute.

    `ingest` reads the source up to a domain time into `frame.parquet`. `train` calls the entry with the training rows and
    writes `model.txt` and `expressions.json`.
    """

    verb: Literal["ingest", "train"]
    code: str
    out: str
    source: SourcePolicy | None = None
    project: str = ""
    until: datetime | None = None
    entry: str = ""
    rows: str = ""
    seed: int = 0
    params: dict[str, str | int | float | bool] = {}


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a step ended. `error_code` is an AndonError's, or `STEP_FAILED` when user code raised."""

    ok: bool
    error_code: str | None = None
    message: str | None = None
    hint: str = ""


def main(argv: list[str]) -> int:
    """Run the step of a spec file for the process with the id PARENT; 0 when it succeeded."""
    _die_with_parent(int(argv[2]))
    spec = msgspec.json.decode(Path(argv[1]).read_bytes(), type=StepSpec)
    try:
        (_ingest if spec.verb == "ingest" else _train)(spec)
        result = StepResult(ok=True)
    except AndonError as error:
        result = StepResult(ok=False, error_code=error.code, message=error.message, hint=error.hint)
    except Exception as error:  # noqa: BLE001  # user code may raise anything; it becomes the run's error
        traceback.print_exc()
        where = _user_frame(error, spec.code)
        result = StepResult(
            ok=False, error_code="STEP_FAILED", message=f"{type(error).__name__}: {error}{where}"
        )
    target = Path(spec.out) / "result.json"
    target.write_bytes(msgspec.json.encode(result))
    return 0 if result.ok else 1


def load_entry(entry: str, folder: str) -> Any:
    """The function that `module:function` names in a folder.

    Raises:
        Invalid: it cannot be imported, or there is no such function.
    """
    module_name, _, function_name = entry.partition(":")
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise Invalid(
            f"the entry {entry!r} cannot be imported: {error}",
            hint=f"it is looked for in the project folder as {module_name}.py",
        ) from None
    except Exception as error:
        raise Invalid(
            f"the entry {entry!r} cannot be imported: {type(error).__name__}: {error}",
            hint=f"fix {module_name}.py",
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise Invalid(
            f"{module_name}.py has no function {function_name!r}", hint="[line] entry is 'module:function'"
        )
    return function


def _ingest(spec: StepSpec) -> None:
    if spec.source is None:
        raise Invalid("an ingest step needs a source")
    sys.path.insert(0, spec.code)
    folder = Path(spec.code) if spec.source.source.startswith("python:") else Path(spec.project)
    read_source(spec.source, folder, spec.until).write_parquet(
        Path(spec.out) / "frame.parquet", compression="lz4"
    )


def _train(spec: StepSpec) -> None:
    entry = load_entry(spec.entry, spec.code)
    made = entry(pl.read_parquet(spec.rows), seed=spec.seed, **spec.params)
    if not isinstance(made, tuple) or len(made) != 2:
        raise Invalid(
            f"{spec.entry} returned {type(made).__name__}", hint="it returns (feature expressions, model)"
        )
    expressions, model = made
    if not hasattr(model, "model_to_string"):
        raise Invalid(
            f"{spec.entry} returned a {type(model).__name__} as its model",
            hint="this release packages LightGBM boosters",
        )
    names = [expression.meta.output_name() for expression in expressions]
    if names != list(model.feature_name()):
        raise Invalid(
            f"the model was trained on {model.feature_name()}, the expressions make {names}",
            hint="train on rows.select(expressions), in that order",
        )
    (Path(spec.out) / "model.txt").write_text(model.model_to_string())
    (Path(spec.out) / "expressions.json").write_bytes(
        msgspec.json.encode([encode_expression(item) for item in expressions])
    )


def _user_frame(error: BaseException, folder: str) -> str:
    """Where in the user's own files an error came from."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(folder)]
    return f" (in {Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process with its parent, so that a killed worker leaves no step behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
