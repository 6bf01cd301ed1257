"""Makes the fixtures of this folder: files as NumPy, SciPy and safetensors write them. See README.md."""

import io
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import scipy.io
import scipy.sparse
from safetensors.numpy import save_file

HERE = Path(__file__).parent
SHAPE = (3, 4, 5)

# The value of element k (in row-major order), from which the tests compute what they expect.
SIGNED = lambda n: (np.arange(n) ** 2 % 23).astype(np.int64) - 11


def array(dtype, shape=SHAPE):
    dtype = np.dtype(dtype)
    n = int(np.prod(shape))
    s = SIGNED(n)
    if dtype.kind == "b":
        x = s % 3 == 0
    elif dtype.kind == "u":
        x = s + 11
    elif dtype.kind == "i":
        x = s
    elif dtype.kind == "c":
        x = s * 0.5 + 1j * (s + 1) * 0.25
    else:
        x = s * 0.5
    return x.astype(dtype).reshape(shape)


def npy(name, x, version=None):
    with open(HERE / name, "wb") as f:
        np.lib.format.write_array(f, x, version=version, allow_pickle=True)


types = ["b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "c16"]
for t in types:
    npy(f"le_{t}.npy", array("<" + t))
    npy(f"be_{t}.npy", array(">" + t))
    npy(f"fortran_{t}.npy", np.asfortranarray(array("<" + t)))
npy("fortran_be_f4.npy", np.asfortranarray(array(">f4")))
npy("fortran_2d.npy", np.asfortranarray(array("<f8", (65, 70))))
npy("fortran_row.npy", np.asfortranarray(array("<f8", (1, 9))))
npy("v2.npy", array("<f4"), (2, 0))
npy("v3.npy", array("<f4"), (3, 0))
npy("scalar.npy", np.array(2.5))
npy("vector.npy", array("<f4", (7,)))
npy("empty.npy", np.zeros((3, 0, 4), "<f4"))
npy("empty_fortran.npy", np.asfortranarray(np.zeros((3, 0, 4), "<f4")))
npy("rank32.npy", array("<i2", (2, 3) + (1,) * 30))
npy("string.npy", np.array(b"csr"))
npy("unicode.npy", np.array("grün"))

npy("bad_object.npy", np.array([{"a": 1}, None], dtype=object))
npy("bad_struct.npy", np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f8")]))
npy("bad_longdouble.npy", np.array([1.0], dtype=np.longdouble))
npy("bad_datetime.npy", np.array(["2020-01-01"], dtype="<M8[D]"))
npy("bad_bfloat16.npy", np.array([1.0], dtype=ml_dtypes.bfloat16))

contents = dict(a=array("<f4"), b=array("<i8", (7,)), c=np.asfortranarray(array("<f8", (3, 4))), d=np.array(2.5))
np.savez(HERE / "stored.npz", **contents)
np.savez_compressed(HERE / "compressed.npz", **contents, zeros=np.zeros(100_000))

rng = np.random.default_rng(0)
csr = scipy.sparse.random(20, 30, density=0.1, format="csr", random_state=rng)
csr.data = array("<f8", csr.data.shape)
scipy.sparse.save_npz(HERE / "csr_compressed.npz", csr)
scipy.sparse.save_npz(HERE / "csr_stored.npz", csr, compressed=False)
np.save(HERE / "csr_dense.npy", csr.toarray())

safe = {t: array("<" + t) for t in ["b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8"]}
save_file(safe, HERE / "all.safetensors", metadata={"format": "np", "made_by": "safetensors"})
bf16 = array("<f4").astype(ml_dtypes.bfloat16)
fp8 = array("<f4", (6,)).astype(ml_dtypes.float8_e4m3fn)
save_file(
    {"bf16": bf16, "empty": np.zeros((0, 4), "<f4"), "scalar": np.array(2.5, "<f4"), "fp8": fp8},
    HERE / "bf16.safetensors",
)
# Shards, as transformers writes them.
save_file({"x": array("<f4"), "y": array("<f2")}, HERE / "model-00001-of-00002.safetensors")
save_file({"z": array("<i8")}, HERE / "model-00002-of-00002.safetensors")
index = {
    "metadata": {"total_size": 840},
    "weight_map": {
        "x": "model-00001-of-00002.safetensors",
        "y": "model-00001-of-00002.safetensors",
        "z": "model-00002-of-00002.safetensors",
    },
}
(HERE / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def mm(name, a, **options):
    scipy.io.mmwrite(HERE / f"mm_{name}.mtx", a, **options)
    dense = a.toarray() if scipy.sparse.issparse(a) else np.asarray(a)
    if dense.dtype.kind in "bu":
        dense = dense.astype(np.int64)
    np.save(HERE / f"mm_{name}.npy", dense)


square = array("<f8", (6, 6)) / 3
square[square == 0] = 1
keep = np.tril(np.arange(36).reshape(6, 6) % 3 != 0)
lower = np.where(keep, square, 0)
z = (lower + 1j * np.where(keep, square.T, 0)).astype(complex)
mm("real_general", scipy.sparse.coo_matrix(np.where(keep, square, 0)), symmetry="general")
mm("real_symmetric", scipy.sparse.coo_matrix(lower + np.tril(lower, -1).T), symmetry="symmetric")
mm("real_skew", scipy.sparse.coo_matrix(np.tril(lower, -1) - np.tril(lower, -1).T), symmetry="skew-symmetric")
hermitian = np.tril(z, -1) + np.tril(z, -1).conj().T + np.diag(np.diag(z).real)
mm("complex_hermitian", scipy.sparse.coo_matrix(hermitian), symmetry="hermitian")
mm("complex_general", scipy.sparse.coo_matrix(z), symmetry="general")
mm("integer", scipy.sparse.coo_matrix((lower * 3).astype(np.int64)), symmetry="general")
mm("unsigned", scipy.sparse.coo_matrix(np.abs(lower * 3).astype(np.uint32)), symmetry="general")
mm("pattern", scipy.sparse.coo_matrix(keep.astype(np.float64)), field="pattern", symmetry="general")
mm("array_real", square[:4], symmetry="general")
mm("array_symmetric", square + square.T, symmetry="symmetric")
mm("array_skew", square - square.T, symmetry="skew-symmetric")
mm("array_complex", z, symmetry="general")
mm("array_hermitian", z + z.conj().T, symmetry="hermitian")
mm("array_integer", (square * 3).astype(np.int64), symmetry="general")
