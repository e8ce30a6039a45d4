"""Models: versions, gates and verdicts, approvals, releases and packaging."""
