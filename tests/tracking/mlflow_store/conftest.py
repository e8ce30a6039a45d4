"""The scripts here are read by the interpreter of an MLflow client; ours has no mlflow."""

collect_ignore = ["make.py", "tell.py"]
