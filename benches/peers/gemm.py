"""Dense products of NumPy (OpenBLAS) and torch (oneMKL)."""

# requires: numpy torch
from common import Peer, serve


def numpy_product(case):
    import numpy as np

    a, b = case.x["a"], case.x["b"]
    if a.dtype.kind != "f":
        return None
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    return Peer("numpy", np.__version__, run=lambda: np.matmul(a, b, out=out), result=lambda c: {"c": c})


def torch_product(case):
    import torch

    torch.set_num_threads(case.threads)
    a, b = (torch.from_numpy(case.x[name]) for name in "ab")
    if not a.is_floating_point():
        return None
    out = torch.empty((a.shape[0], b.shape[1]), dtype=a.dtype)
    return Peer(
        "torch", torch.__version__, run=lambda: torch.mm(a, b, out=out), result=lambda c: {"c": c.numpy()}
    )


serve([numpy_product, torch_product])
