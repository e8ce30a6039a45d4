"""The loop itself: steps, cache, executors, triggers and the reconciler that sees every room."""
