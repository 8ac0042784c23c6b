"""Configs of ``dop fit`` that the other verbs run."""
