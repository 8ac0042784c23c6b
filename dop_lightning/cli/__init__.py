"""Verbs of `dop`, one module each."""
