"""The configs of ``dop fit`` that the other verbs stand for."""
