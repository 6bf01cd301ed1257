"""Fused attention of torch on the CPU. Kernels for quantised attention exist for GPUs only."""

# requires: numpy torch
from common import Peer, serve


def torch_f32(case):
    return attention(case, "float32")


def torch_bf16(case):
    return attention(case, "bfloat16")


def attention(case, dtype):
    import torch

    torch.set_num_threads(case.threads)
    q, k, v = (torch.from_numpy(case.x[name].copy()).to(getattr(torch, dtype)) for name in "qkv")
    causal = bool(case.params["causal"])

    def run():
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    name = f"torch scaled_dot_product_attention {dtype}"
    return Peer(name, torch.__version__, run, lambda o: {"o": o.float().numpy()})


serve([torch_f32, torch_bf16])
