"""Fused attention of torch (`scaled_dot_product_attention`), forward and backward, in f32 and bf16."""

# requires: numpy torch
from common import Peer, serve


def _tensors(case, names):
    import torch

    torch.set_num_threads(case.threads)
    dtype = getattr(torch, case.params["dtype"])
    return [torch.from_numpy(case.x[name]).to(dtype) for name in names]


def _attend(case, q, k, v):
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(q, k, v, is_causal=case.params["causal"], enable_gqa=q.shape[1] != k.shape[1])


def torch_forward(case):
    import torch

    if case.params["what"] != "forward":
        return None
    inputs = _tensors(case, "qkv")

    def run():
        with torch.no_grad():
            return _attend(case, *inputs)

    return Peer("torch", torch.__version__, run, lambda o: {"o": o.float().numpy()})


def torch_backward(case):
    import torch

    if case.params["what"] != "backward":
        return None
    *inputs, d_o = _tensors(case, ["q", "k", "v", "d_o"])
    inputs = [x.requires_grad_() for x in inputs]
    out = _attend(case, *inputs)
    run = lambda: torch.autograd.grad(out, inputs, d_o, retain_graph=True)
    result = lambda grads: dict(zip(["dq", "dk", "dv"], (g.float().numpy() for g in grads)))
    return Peer("torch", torch.__version__, run, result)


serve([torch_forward, torch_backward])
