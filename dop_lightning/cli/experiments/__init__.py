"""``dop fit``, ``validate``, ``test`` and ``predict``."""
