"""PyTorch Lightning around the engine: module, data modules, callbacks and strategies."""
