"""The vocabulary every room shares: ids, frozen entities, events, errors, the clock and settings."""
