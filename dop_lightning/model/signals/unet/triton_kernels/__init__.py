"""Fused operations of a skip U-Net for GPUs: kernels in Triton, which CUDA builds of PyTorch include."""
