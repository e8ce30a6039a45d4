"""Runs: experiments, parameters, metrics and search over them."""
