"""Load a line's model with the MLflow client of the Python that runs this, and answer the package's golden rows.

`python load_with_mlflow.py ADDRESS FOLDER...` prints JSON: for each address the outputs as hex, or what went wrong. The folders
hold what a user would have installed beside MLflow: Andon and what it needs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def answers(uri: str) -> dict[str, Any]:
    import mlflow
    import pandas as pd

    golden = json.loads(
        Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/golden.json")).read_text()
    )
    try:
        model = mlflow.pyfunc.load_model(uri)
        outputs = model.predict(pd.DataFrame(golden["rows"]))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "outputs": [float(value).hex() for value in outputs],
        "golden": golden["outputs"],
        "run": model.metadata.run_id,
        "inputs": model.metadata.get_input_schema().input_names(),
    }


def main(server: str, *folders: str) -> None:
    import mlflow

    sys.path += folders
    mlflow.set_tracking_uri(server)
    uris = ("models:/churn/1", "models:/churn@production", "models:/churn/Production", "models:/churn/latest")
    sys.stdout.write(json.dumps({uri: answers(uri) for uri in uris}))


if __name__ == "__main__":
    main(*sys.argv[1:])
