"""The skip U-Net of deep image prior, and its kernels for a CPU."""
