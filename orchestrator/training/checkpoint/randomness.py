"""The random generators of a rank, so that a resumed run draws what the other would have drawn."""

from __future__ import annotations

import random

import numpy as np
import torch


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """uint8 tensors on the CPU: PyTorch's generators for CPU and GPU, Python's and numpy's."""
    state = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    _, words, position, _, _ = np.random.get_state()
    numpy_state = np.append(np.asarray(words, dtype=np.uint32), np.uint32(position))
    state["numpy"] = torch.from_numpy(numpy_state.view(np.uint8).copy())
    python_words = np.array(random.getstate()[1], dtype=np.uint32)
    state["python"] = torch.from_numpy(python_words.view(np.uint8).copy())
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put them back; what `state` lacks stays as it is."""
    if "torch" in state:
        torch.set_rng_state(state["torch"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    if "numpy" in state:
        words = state["numpy"].numpy().view(np.uint32)
        np.random.set_state(("MT19937", words[:-1], int(words[-1]), 0, 0.0))
    if "python" in state:
        words = state["python"].numpy().view(np.uint32)
        random.setstate((3, tuple(map(int, words)), None))
