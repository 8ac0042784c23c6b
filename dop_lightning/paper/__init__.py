"""Theory and figures of the paper."""
