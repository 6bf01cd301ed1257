"""Layers and kernel features: torch's dense layer, the same two products in torch, scikit-learn's feature maps.

`what` is "layer" (x, w, b; g and psi for the two products) or a kernel: "gauss" (exp(-gamma |x - y|^2)) or
"polynomial" ((x . y + 1)^degree). Kernels are of the rows of x with m features; the answer is phi.
"""

# requires: numpy torch scikit-learn
from common import Peer, serve


def torch_linear_relu(case):
    import torch

    if case.params["what"] != "layer":
        return None
    torch.set_num_threads(case.threads)
    x, w, b = (torch.from_numpy(case.x[name].copy()) for name in ("x", "w", "b"))

    def run():
        with torch.inference_mode():
            return torch.relu_(torch.nn.functional.linear(x, w, b))

    return Peer("torch Linear + ReLU", torch.__version__, run, lambda y: {"dense": y.numpy()})


def torch_two_products(case):
    import torch

    if case.params["what"] != "layer":
        return None
    torch.set_num_threads(case.threads)
    x, g, psi = (torch.from_numpy(case.x[name].copy()) for name in ("x", "g", "psi"))
    scale = g.shape[0] ** -0.5

    def run():
        with torch.inference_mode():
            return (x @ g.t()).clamp_(min=0).mul_(scale) @ psi.t()

    return Peer("torch, two products", torch.__version__, run, lambda y: {"y": y.numpy()})


def _sampler(case, kind, make):
    import sklearn
    from threadpoolctl import threadpool_limits

    if case.params["what"] != kind:
        return None
    x, sampler = case.x["x"], make(case.params)

    def run():
        with threadpool_limits(case.threads):
            return sampler.fit_transform(x)

    return Peer(type(sampler).__name__, sklearn.__version__, run, lambda phi: {"phi": phi})


def rbf_sampler(case):
    from sklearn.kernel_approximation import RBFSampler

    return _sampler(case, "gauss", lambda p: RBFSampler(gamma=p["gamma"], n_components=p["m"], random_state=0))


def nystroem_gauss(case):
    from sklearn.kernel_approximation import Nystroem

    make = lambda p: Nystroem(kernel="rbf", gamma=p["gamma"], n_components=p["m"], random_state=0)
    return _sampler(case, "gauss", make)


def polynomial_sketch(case):
    from sklearn.kernel_approximation import PolynomialCountSketch

    make = lambda p: PolynomialCountSketch(
        gamma=1.0, degree=p["degree"], coef0=1, n_components=p["m"], random_state=0)
    return _sampler(case, "polynomial", make)


def nystroem_polynomial(case):
    from sklearn.kernel_approximation import Nystroem

    make = lambda p: Nystroem(
        kernel="polynomial", gamma=1.0, degree=p["degree"], coef0=1, n_components=p["m"], random_state=0)
    return _sampler(case, "polynomial", make)


serve([torch_linear_relu, torch_two_products, rbf_sampler, nystroem_gauss, polynomial_sketch, nystroem_polynomial])
