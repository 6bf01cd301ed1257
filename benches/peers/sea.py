"""Dense causal attention of torch, fused and with a stored matrix, and the Performer's linear attention."""

# requires: numpy torch performer-pytorch
from common import Peer, serve


def tensors(case):
    import torch

    torch.set_num_threads(case.threads)
    return [torch.from_numpy(case.x[name].copy()) for name in ("q", "k", "v")]


def torch_sdpa(case):
    import torch

    q, k, v = tensors(case)

    def run():
        with torch.no_grad():
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    return Peer("torch SDPA causal", torch.__version__, run, lambda y: {"y": y.numpy()})


def torch_matrix(case):
    import torch

    q, k, v = tensors(case)
    t, d = q.shape[2:]
    if t > 4096:
        return None  # Its matrix would take more than a GiB.

    def run():
        with torch.no_grad():
            scores = (q @ k.transpose(-1, -2)) * d**-0.5
            scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), float("-inf"))
            return scores.softmax(-1) @ v

    return Peer("torch masked softmax", torch.__version__, run, lambda y: {"y": y.numpy()})


def performer(case):
    from importlib.metadata import version

    import torch
    from performer_pytorch import FastAttention

    q, k, v = tensors(case)
    torch.manual_seed(0)
    attention = FastAttention(dim_heads=q.shape[3], nb_features=266, causal=False)

    def run():
        with torch.no_grad():
            return attention(q, k, v)

    return Peer("performer-pytorch (bidirectional)", version("performer-pytorch"), run, lambda y: {"y": y.numpy()})


serve([torch_sdpa, torch_matrix, performer])
