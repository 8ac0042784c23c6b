"""Operations of a skip U-Net in a few passes each, for a GPU: kernels in Triton, which PyTorch's CUDA builds bring."""
