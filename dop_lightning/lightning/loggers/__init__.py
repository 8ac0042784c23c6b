"""What the loggers of a Trainer get: hyperparameters, curves over iterations, pictures, final scores."""
