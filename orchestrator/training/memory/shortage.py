"""Telling a lack of memory from every other failure."""

from __future__ import annotations

import torch

_SENTENCES = (
    "DefaultCPUAllocator: can't allocate memory",
    "out of memory",  # CUDA's and ROCm's own calls, outside of PyTorch's allocator
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less memory in use would have helped, on a GPU or on the host.

    Libraries below PyTorch's allocator raise RuntimeError, which only the text tells apart.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sentence in text for sentence in _SENTENCES)
