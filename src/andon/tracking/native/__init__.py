"""The native tracking interface: a run that survives its server, its disk and its own process.

A run writes into a spool beside the training, one frame for each call, and a thread carries the spool to where runs are
kept. `client` is what a person uses, `entries` what is written, `spool` where, `sender` and `targets` bring it away, and
`delivery` receives it, exactly once. `capture` and `console` note what surrounded the run.
"""
