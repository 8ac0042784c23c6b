"""Skip U-Net of deep image prior, and its kernels for CPUs and GPUs."""
