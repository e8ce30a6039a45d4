"""HTTP: the native API, the MLflow wire and the pages a person reads."""
