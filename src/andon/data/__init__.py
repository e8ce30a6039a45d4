"""Data on its way in: sources, contracts, dataset versions and features."""
