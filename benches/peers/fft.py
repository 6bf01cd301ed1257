"""Transforms of power-of-two length: QMCPy (NumPy, C and torch forms), SciPy's FFT."""

# requires: numpy scipy torch qmcpy qmctoolscl
import warnings

from common import Peer, serve

warnings.filterwarnings("ignore")


def _complex(case):
    return case.x["x"].view("complex128").reshape(-1)


def _pairs(y):
    return {"y": y.view("float64")}


def qmcpy_numpy(case):
    import qmcpy

    if case.params["kind"] == "fwht":
        run = lambda: qmcpy.fwht(case.x["x"])
        return Peer("qmcpy (NumPy)", qmcpy.__version__, run, lambda y: {"y": y})
    if case.params["kind"] == "fftbr":
        x = _complex(case)
        return Peer("qmcpy (NumPy)", qmcpy.__version__, lambda: qmcpy.fftbr(x), _pairs)
    return None


def qmctoolscl_c(case):
    import numpy as np
    import qmctoolscl

    n = case.x["x"].shape[-1]
    if case.params["kind"] != "fwht":
        return None
    one, x, work = np.uint64(1), np.empty((1, 1, n)), case.x["x"].reshape(1, 1, n)

    def run():
        np.copyto(x, work)
        qmctoolscl.fwht_1d_radix2(one, one, np.uint64(n // 2), x, backend="c")
        return x

    return Peer("qmctoolscl (C)", qmctoolscl.__version__, run, lambda y: {"y": y.reshape(-1).copy()})


def qmcpy_torch(case):
    import torch
    import qmcpy

    torch.set_num_threads(case.threads)
    if case.params["kind"] == "fwht":
        x = torch.from_numpy(case.x["x"])
        return Peer("qmcpy (torch)", qmcpy.__version__, lambda: qmcpy.fwht_torch(x), lambda y: {"y": y.numpy()})
    if case.params["kind"] == "fftbr":
        x = torch.from_numpy(_complex(case))
        return Peer("qmcpy (torch)", qmcpy.__version__, lambda: qmcpy.fftbr_torch(x), lambda y: _pairs(y.numpy()))
    return None


def scipy_fft(case):
    import scipy
    import scipy.fft

    if case.params["kind"] == "fftbr":
        x = _complex(case)
        return Peer("scipy.fft (not reordered)", scipy.__version__, lambda: scipy.fft.fft(x, norm="ortho"), _pairs)
    if case.params["kind"] == "rfftbr":
        x = case.x["x"]
        return Peer("scipy.rfft (not reordered)", scipy.__version__, lambda: scipy.fft.rfft(x, norm="ortho"), _pairs)
    return None


serve([qmcpy_numpy, qmctoolscl_c, qmcpy_torch, scipy_fft])
