"""torch's cross-entropy of a linear head: its chunked operator, and with all logits stored."""

# requires: numpy torch
from common import Peer, serve


def _peer(case, name, loss):
    import torch

    torch.set_num_threads(case.threads)
    e, c = (torch.from_numpy(case.x[key].copy()).requires_grad_() for key in ("e", "c"))
    bias = torch.from_numpy(case.x["bias"].copy())
    targets = torch.from_numpy(case.x["targets"].copy())

    def run():
        e.grad = c.grad = None
        value = loss(torch, e, c, targets, bias)
        value.backward()
        return e.grad

    return Peer(name, torch.__version__, run, lambda de: {"de": de.numpy()})


def torch_chunked(case):
    if case.params["tokens"] * case.params["words"] > 1 << 25:
        return None  # Half a minute and more.

    def loss(torch, e, c, targets, bias):
        options = torch.nn.LinearCrossEntropyOptions()
        return torch.nn.functional.linear_cross_entropy(e, c, targets, linear_bias=bias, options=options)

    return _peer(case, "torch linear_cross_entropy, chunked", loss)


def torch_stored(case):
    def loss(torch, e, c, targets, bias):
        return torch.nn.functional.cross_entropy(torch.nn.functional.linear(e, c, bias), targets)

    return _peer(case, "torch cross_entropy of stored logits", loss)


serve([torch_chunked, torch_stored])
