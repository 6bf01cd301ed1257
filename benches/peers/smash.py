"""Peers of kc-sparse's product: A @ A with sorted rows.

# requires: numpy scipy sparse_dot_mkl mkl python-graphblas
"""

from common import Peer, serve


def _matrix(case):
    import scipy.sparse as sp

    n = len(case.x["indptr"]) - 1
    indptr, indices = case.x["indptr"].astype("int32"), case.x["indices"].astype("int32")
    return sp.csr_matrix((case.x["data"], indices, indptr), shape=(n, n))


def _arrays(c):
    return {"data": c.data}


def scipy_product(case):
    import scipy

    a = _matrix(case)

    def run():
        c = a @ a
        c.sort_indices()
        return c

    return Peer("scipy", scipy.__version__, run=run, result=_arrays)


def _load_mkl():
    """The package mkl puts its library beside the interpreter, where the loader does not look."""
    import ctypes
    import glob
    import sys

    for path in glob.glob(f"{sys.prefix}/lib/libmkl_rt.so*"):
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def mkl_product(case):
    from importlib.metadata import version

    _load_mkl()
    import sparse_dot_mkl

    a = _matrix(case)
    sparse_dot_mkl.mkl_set_num_threads(case.threads)
    return Peer(
        "MKL", version("mkl"), run=lambda: sparse_dot_mkl.dot_product_mkl(a, a, reorder_output=True), result=_arrays
    )


def graphblas_product(case):
    import graphblas as gb

    gb.ss.config["nthreads"] = case.threads
    a = gb.io.from_scipy_sparse(_matrix(case))

    def run():
        c = a.mxm(a, gb.semiring.plus_times).new()
        return c.ss.export("csr", sort=True, give_ownership=True)

    return Peer("GraphBLAS", gb.__version__, run=run, result=lambda c: {"data": c["values"]})


serve([scipy_product, mkl_product, graphblas_product])
