"""The plugin is loaded by name before PyTorch, and never collected."""

collect_ignore = ["plugin.py", "startup"]
