"""How a model is fitted: methods, states, the run loop, optimizers and step rules. Plain PyTorch."""
