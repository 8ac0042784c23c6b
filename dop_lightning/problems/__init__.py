"""What was observed: problems, random streams, noise, metrics and scores."""
