"""Gaussian processes: fastgps on lattices and nets, GPyTorch's exact (dense) process.

A case holds the values y of a function at the first n points of the same seeded sequence. `what` is "step" (ten
evaluations of the marginal likelihood with gradients and as many updates) or "mean" (posterior means at `xs`).
"""

# requires: numpy torch qmcpy fastgps gpytorch
import warnings

from common import Peer, serve

warnings.filterwarnings("ignore")


def _fastgps(case):
    import fastgps
    import qmcpy
    import torch

    torch.set_num_threads(case.threads)
    torch.set_default_dtype(torch.float64)
    p = case.params
    if p["kind"] == "si":
        kernel = qmcpy.KernelShiftInvar(p["dim"], torchify=True, alpha=2, lengthscales=1.0)
        gp = fastgps.FastGPLattice(kernel, seqs=qmcpy.Lattice(p["dim"], seed=7), noise=1e-8)
    else:
        kernel = qmcpy.KernelDigShiftInvar(p["dim"], torchify=True, alpha=2, lengthscales=1.0)
        net = qmcpy.DigitalNetB2(p["dim"], seed=7, randomize="DS", t=53)
        gp = fastgps.FastGPDigitalNetB2(kernel, seqs=net, noise=1e-8)
    gp.get_x_next(p["n"])
    gp.add_y_next(torch.from_numpy(case.x["y"]))
    return gp


def fastgps_step(case):
    import fastgps

    if case.params["what"] != "step":
        return None
    gp = _fastgps(case)
    more = dict(verbose=0, stop_crit_wait_iterations=10**9, store_hists=1, update_prior_mean=False)
    first = gp.fit(iterations=1, **more)["loss"].numpy().astype("float64")
    run = lambda: gp.fit(iterations=10, **more)
    return Peer("fastgps", fastgps.__version__, run, lambda _: {"loss": first})


def fastgps_mean(case):
    import fastgps
    import torch

    if case.params["what"] != "mean":
        return None
    gp, xs = _fastgps(case), torch.from_numpy(case.x["xs"])
    return Peer("fastgps", fastgps.__version__, lambda: gp.post_mean(xs), lambda m: {"mean": m.detach().numpy()})


def gpytorch_exact(case):
    import gpytorch
    import torch

    p = case.params
    if p["what"] != "step" or p["n"] > p["dense_limit"]:
        return None
    torch.set_num_threads(case.threads)
    torch.set_default_dtype(torch.float64)
    x, y = torch.from_numpy(case.x["x"]), torch.from_numpy(case.x["y"])

    class Exact(gpytorch.models.ExactGP):
        def __init__(self, likelihood):
            super().__init__(x, y, likelihood)
            self.mean = gpytorch.means.ConstantMean()
            base = gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=p["dim"])
            self.kernel = gpytorch.kernels.ScaleKernel(base)

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

    likelihood = gpytorch.likelihoods.GaussianLikelihood()
    model = Exact(likelihood)
    model.train()
    loss = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)

    def run():
        for _ in range(10):
            optimiser.zero_grad()
            value = -loss(model(x), y)
            value.backward()
            optimiser.step()
        return value

    result = lambda v: {"loss": v.detach().reshape(1).numpy()}
    return Peer("GPyTorch exact Matern-5/2", gpytorch.__version__, run, result)


serve([fastgps_step, fastgps_mean, gpytorch_exact])
