"""The same attention written in torch operations, softmax attention of torch, and Nystromformer."""

# requires: numpy torch nystrom-attention einops
from common import Peer, serve


def _inputs(case):
    import torch

    torch.set_num_threads(case.threads)
    return torch, {name: torch.from_numpy(x.copy()) for name, x in case.x.items()}


def _newton(torch, a, iters=20, ridge=0.01):
    p = a + ridge * torch.eye(a.shape[-1])
    v = 1.8 / a.sum(-1).amax(-1)[..., None, None] ** 2 * p
    for _ in range(iters):
        v = 2 * v - v @ p @ v
    return v


def _gaussian(torch, a, b):
    squares = (a * a).sum(-1, keepdim=True) + (b * b).sum(-1).unsqueeze(-2)
    return torch.exp(-0.5 * (squares - 2 * a @ b.transpose(-1, -2)).clamp_min(0))


def torch_soft(case):
    torch, x = _inputs(case)
    side, ratio = case.params["side"], case.params["ratio"]

    class Inverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            y = _newton(torch, a)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, slope):
            t = ctx.saved_tensors[0].transpose(-1, -2)
            return -(t @ slope @ t)

    def attend(q, v, w, gamma, beta):
        batch, heads, tokens, d = q.shape
        q = q * d**-0.25
        image = q.reshape(batch * heads, side, side, d).permute(0, 3, 1, 2)
        patches = torch.nn.functional.conv2d(image, w, stride=ratio).flatten(2).transpose(1, 2)
        marks = torch.nn.functional.gelu(torch.nn.functional.layer_norm(patches, (d,), gamma, beta))
        marks = marks.reshape(batch, heads, -1, d)
        kernel = _gaussian(torch, q, marks)
        inverse = Inverse.apply(_gaussian(torch, marks, marks))
        return kernel @ (inverse @ (kernel.transpose(-1, -2) @ v))

    d = x["q"].shape[-1]
    parameters = [x["q"], x["v"], x["w"], torch.ones(d), torch.zeros(d)]

    def forward():
        with torch.no_grad():
            return attend(*parameters)

    def both():
        leaves = [p.detach().requires_grad_() for p in parameters]
        attend(*leaves).backward(x["dx"])
        return leaves[0].grad

    backward = case.params["backward"]
    key = "dq" if backward else "x"
    return Peer("the same in torch operations", torch.__version__, both if backward else forward,
                lambda y: {key: y.detach().numpy()})


def torch_softmax(case):
    torch, x = _inputs(case)
    if x["q"].shape[2] > 20000:
        return None  # Minutes for a call.
    attend = torch.nn.functional.scaled_dot_product_attention

    def forward():
        with torch.no_grad():
            return attend(x["q"], x["q"], x["v"])

    def both():
        q, v = (x[name].detach().requires_grad_() for name in "qv")
        attend(q, q, v).backward(x["dx"])
        return q.grad

    return Peer("torch SDPA (softmax)", torch.__version__, both if case.params["backward"] else forward,
                lambda y: {"softmax": y.detach().numpy()})


def nystromformer(case):
    if case.params["backward"]:
        return None
    torch, x = _inputs(case)
    from importlib.metadata import version

    from nystrom_attention import NystromAttention

    _, heads, tokens, d = x["q"].shape
    layer = NystromAttention(heads * d, dim_head=d, heads=heads, num_landmarks=49, residual=False).eval()
    flat = x["q"].transpose(1, 2).reshape(1, tokens, heads * d).contiguous()

    def forward():
        with torch.no_grad():
            return layer(flat)

    return Peer("nystrom-attention (with projections)", version("nystrom-attention"), forward,
                lambda y: {"nystrom": y.numpy()})


serve([torch_soft, torch_softmax, nystromformer])
