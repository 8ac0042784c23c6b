"""Configs with which other verbs run ``dop fit``."""
