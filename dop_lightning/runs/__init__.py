"""Results of a run as files and tables."""
