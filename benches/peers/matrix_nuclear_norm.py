"""The published formulas in tensor libraries: centre, normalise rows, column norms, sum of the largest."""

# requires: numpy torch
from common import Peer, serve


def torch_formulas(case):
    import torch

    torch.set_num_threads(case.threads)
    x = torch.from_numpy(case.x["x"])
    top = min(x.shape)

    def run():
        centred = x - x.mean(dim=0, keepdim=True)
        z = centred / torch.norm(centred, p=2, dim=1, keepdim=True)
        norms = torch.sqrt(torch.sum(z**2, dim=0))
        return torch.sum(torch.sort(norms, descending=True).values[:top])

    return Peer("torch", torch.__version__, run, lambda raw: {"mnn": raw.double().reshape(1).numpy()})


def numpy_formulas(case):
    import numpy as np

    x = case.x["x"]
    top = min(x.shape)

    def run():
        centred = x - x.mean(axis=0, keepdims=True)
        z = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        norms = np.sqrt(np.sum(z**2, axis=0))
        return np.sort(norms)[::-1][:top].sum()

    return Peer("numpy", np.__version__, run, lambda raw: {"mnn": np.array([raw], dtype=np.float64)})


serve([torch_formulas, numpy_formulas])
