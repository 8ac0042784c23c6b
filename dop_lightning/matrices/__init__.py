"""Matrices: tables, separation, the choice of α, and :class:`~dop_lightning.matrices.robust_pca.RobustPCA`."""
