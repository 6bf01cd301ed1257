"""Points and cubature: QMCPy itself, SciPy's generators and quadrature, torch's Sobol' engine.

A case of points is judged by the mean over the points of f(x) = prod_j (1 + (x_j - 1/2) / (j + 1)^2), whose
integral is 1, so that generators with other random numbers can be compared.
"""

# requires: numpy scipy torch qmcpy
import warnings

from common import Peer, serve

warnings.filterwarnings("ignore")


def _mean(x):
    import numpy as np

    x = x.reshape(-1, x.shape[-1]).astype(np.float64)
    weights = 1 / (np.arange(x.shape[1]) + 2.0) ** 2
    return {"mean": np.array([np.prod(1 + (x - 0.5) * weights, axis=1).mean()])}


def qmcpy_points(case):
    import qmcpy

    p = case.params
    make = {
        "net": lambda: qmcpy.DigitalNetB2(p["dim"], seed=7),
        "net_nus": lambda: qmcpy.DigitalNetB2(p["dim"], seed=7, randomize="NUS"),
        "lattice": lambda: qmcpy.Lattice(p["dim"], seed=7),
        "halton": lambda: qmcpy.Halton(p["dim"], seed=7),
        "halton_plain": lambda: qmcpy.Halton(p["dim"], seed=7, randomize=False),
        "halton_nus": lambda: qmcpy.Halton(p["dim"], seed=7, randomize="NUS"),
    }.get(p["what"])
    if make is None:
        return None
    if p["what"].endswith("nus"):  # The tree must be grown anew each time.
        return Peer("qmcpy", qmcpy.__version__, lambda: make().gen_samples(p["n"]), _mean)
    generator = make()
    return Peer("qmcpy", qmcpy.__version__, lambda: generator.gen_samples(p["n"]), _mean)


def qmcpy_construct(case):
    import qmcpy

    p = case.params
    if p["what"] != "construct":
        return None
    run = lambda: qmcpy.DigitalNetB2(p["dim"], seed=7)
    return Peer("qmcpy", qmcpy.__version__, run, lambda g: _mean(g.gen_samples(1024)))


def scipy_points(case):
    import scipy
    from scipy.stats import qmc

    p = case.params
    make = {
        "net": lambda: qmc.Sobol(p["dim"], scramble=True, rng=7),
        "halton": lambda: qmc.Halton(p["dim"], scramble=True, rng=7),
        "halton_plain": lambda: qmc.Halton(p["dim"], scramble=False),
    }.get(p["what"])
    if make is None:
        return None
    engine = make()

    def run():
        engine.reset()
        return engine.random(p["n"])

    return Peer("scipy", scipy.__version__, run, _mean)


def torch_points(case):
    import torch

    p = case.params
    if p["what"] != "net":
        return None
    torch.set_num_threads(case.threads)
    engine = torch.quasirandom.SobolEngine(p["dim"], scramble=True, seed=7)

    def run():
        engine.reset()
        return engine.draw(p["n"], dtype=torch.float64)

    return Peer("torch", torch.__version__, run, lambda x: _mean(x.numpy()))


def scipy_discrepancy(case):
    import numpy as np
    import scipy
    from scipy.stats import qmc

    p = case.params
    if p["what"] != "discrepancy":
        return None
    run = lambda: qmc.discrepancy(case.x["x"], method=p["kind"])
    return Peer("scipy", scipy.__version__, run, lambda v: {"value": np.array([v], dtype=np.float64)})


def _integrand(qmcpy, p, sampler):
    if p["integrand"] == "keister":
        return qmcpy.Keister(sampler)
    return qmcpy.FinancialOption(sampler, option="ASIAN")


def qmcpy_cubature(case):
    import numpy as np
    import qmcpy

    p = case.params
    if p["what"] != "cubature":
        return None
    net = lambda **more: qmcpy.DigitalNetB2(p["dim"], seed=7, **more)
    tol = p["abs_tol"]
    start = {
        "net-g": lambda: qmcpy.CubQMCNetG(_integrand(qmcpy, p, net()), abs_tol=tol),
        "lattice-g": lambda: qmcpy.CubQMCLatticeG(
            _integrand(qmcpy, p, qmcpy.Lattice(p["dim"], seed=7)), abs_tol=tol, n_limit=2**20
        ),
        "rep-t": lambda: qmcpy.CubQMCRepStudentT(_integrand(qmcpy, p, net(replications=15)), abs_tol=tol),
        "mc-g": lambda: qmcpy.CubMCG(_integrand(qmcpy, p, qmcpy.IIDStdUniform(p["dim"], seed=7)), abs_tol=tol),
        "mlqmc": lambda: qmcpy.CubMLQMC(
            qmcpy.FinancialOption(net(replications=32), option="ASIAN", d_coarsest=p["dim"]), rmse_tol=tol
        ),
    }[p["algo"]]
    value = lambda answer: {"value": np.atleast_1d(np.asarray(answer[0], dtype=np.float64))}
    return Peer("qmcpy", qmcpy.__version__, lambda: start().integrate(), value)


def scipy_quadrature(case):
    import numpy as np
    import scipy
    from scipy.stats import norm, qmc

    p = case.params
    if p["what"] != "cubature" or p["integrand"] != "keister" or p["algo"] != "net-g":
        return None

    def keister(u):
        t = norm.ppf(u) / np.sqrt(2)
        return np.pi ** (p["dim"] / 2) * np.cos(np.sqrt((t**2).sum(axis=0)))

    points = max(256, p["n_total"] // 8)
    engine = lambda: qmc.Sobol(p["dim"], rng=7)
    run = lambda: scipy.integrate.qmc_quad(
        keister, np.zeros(p["dim"]), np.ones(p["dim"]), n_estimates=8, n_points=points, qrng=engine()
    )
    name = "scipy qmc_quad, as many points"
    return Peer(name, scipy.__version__, run, lambda r: {"value": np.array([r.integral])})


serve(
    [
        qmcpy_points,
        qmcpy_construct,
        scipy_points,
        torch_points,
        scipy_discrepancy,
        qmcpy_cubature,
        scipy_quadrature,
    ]
)
