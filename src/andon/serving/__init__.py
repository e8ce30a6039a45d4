"""The hot path: protocols, routing, model runtimes and the prediction log."""
