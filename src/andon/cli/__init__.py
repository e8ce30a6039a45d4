"""The `andon` command: parse, call, print."""
