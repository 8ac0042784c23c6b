"""The model ``y = A(φ(θ)) + s``: signals, operators, corruption and losses."""
