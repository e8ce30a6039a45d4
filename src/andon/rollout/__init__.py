"""Safe change: rollout plans, guards and undo."""
