"""PyTorch Lightning interface to the engine: module, data modules, callbacks and strategies."""
