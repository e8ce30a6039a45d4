"""The metadata of a workspace in SQL: one schema, two dialects, nothing of it visible above the ports."""
