"""Play one scenario with the MLflow client of the Python that runs this, against MLFLOW_TRACKING_URI.

`python play.py SCENARIO ANSWERS` calls the scenario's `check_*` functions in the order they stand in and appends a line
of JSON to the file ANSWERS for each as it ends: its name, its error (a traceback, or null) and how long it took.
Needs nothing beside the standard library: every client's environment runs it.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def main(scenario: Path, answers: Path) -> None:
    """Call each check; one that fails does not keep the next from being tried."""
    sys.path.insert(0, str(scenario.parent))
    spec = importlib.util.spec_from_file_location(scenario.stem, scenario)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[scenario.stem] = module
    spec.loader.exec_module(module)
    with answers.open("a") as out:
        for name, value in list(vars(module).items()):
            if name.startswith("check_") and getattr(value, "__module__", "") == scenario.stem:
                out.write(json.dumps(outcome(name, value)) + "\n")
                out.flush()


def outcome(name: str, check: Any) -> dict[str, Any]:
    began, error = time.perf_counter(), None
    try:
        check()
    except Exception:  # noqa: BLE001  # whatever it is, it is this check's answer
        error = traceback.format_exc()
    return {"check": name, "error": error, "took_s": round(time.perf_counter() - began, 3)}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
