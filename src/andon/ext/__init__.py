"""Extras: adapters to ports that need a library of their own, found by entry point."""
