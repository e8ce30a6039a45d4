"""Conformance suites for every port, seeded worlds and a fake clock, shipped so that others can run them."""
