"""Matrices: tables, separation, choice of α, and :class:`~dop_lightning.matrices.robust_pca.RobustPCA`."""
