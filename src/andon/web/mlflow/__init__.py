"""MLflow's REST interface over Andon's own rows: unmodified MLflow clients log, search, register and load.

`wire` is the frame (routes as data, requests read into forms, errors in MLflow's shape), the other modules are the
endpoints by noun. What is not supported answers 501 and is listed in docs/reference/mlflow-wire.md.
"""
