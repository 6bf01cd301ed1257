"""Low-bit products of other programs: y = x w^T with the weights quantised by the program itself.

Each function makes a peer from a case with the arrays x (tokens, columns) and w (rows, columns).
"""

from common import Peer

# How ggml numbers its types.
GGML_TYPES = {"q4_0": 2, "q8_0": 8, "q2_K": 10, "q3_K": 11, "q4_K": 12, "q6_K": 14, "tq2_0": 35}


def _ggml_library():
    import ctypes as c
    import os

    import llama_cpp

    folder = os.path.join(os.path.dirname(llama_cpp.__file__), "lib")
    base = c.CDLL(os.path.join(folder, "libggml-base.so"))
    cpu = c.CDLL(os.path.join(folder, "libggml-cpu.so"))

    class Init(c.Structure):
        _fields_ = [("size", c.c_size_t), ("buffer", c.c_void_p), ("no_alloc", c.c_bool)]

    class Plan(c.Structure):
        # The last field is room for what later versions add.
        _fields_ = [("work_size", c.c_size_t), ("work_data", c.c_void_p), ("threads", c.c_int),
                    ("pool", c.c_void_p), ("abort", c.c_void_p), ("abort_data", c.c_void_p),
                    ("rest", c.c_uint64 * 8)]

    pointer = c.c_void_p
    for name, result, arguments in [
        ("ggml_init", pointer, [Init]),
        ("ggml_free", None, [pointer]),
        ("ggml_new_tensor_2d", pointer, [pointer, c.c_int, c.c_int64, c.c_int64]),
        ("ggml_get_data", pointer, [pointer]),
        ("ggml_mul_mat", pointer, [pointer, pointer, pointer]),
        ("ggml_new_graph", pointer, [pointer]),
        ("ggml_build_forward_expand", None, [pointer, pointer]),
        ("ggml_quantize_chunk", c.c_size_t, [c.c_int, pointer, pointer, c.c_int64, c.c_int64, c.c_int64, pointer]),
    ]:
        function = getattr(base, name)
        function.restype, function.argtypes = result, arguments
    cpu.ggml_graph_plan.restype = Plan
    cpu.ggml_graph_plan.argtypes = [pointer, c.c_int, pointer]
    cpu.ggml_graph_compute.argtypes = [pointer, c.POINTER(Plan)]
    cpu.ggml_cpu_init()
    return base, cpu, Init


def ggml(kind):
    """A product of ggml, through the library that llama-cpp-python carries."""

    def prepare(case):
        import ctypes as c

        import llama_cpp
        import numpy as np

        base, cpu, init = _ggml_library()
        (n, k), m, type_id = case.x["w"].shape, case.x["x"].shape[0], GGML_TYPES[kind]
        w = np.ascontiguousarray(case.x["w"], np.float32)
        x = np.ascontiguousarray(case.x["x"], np.float32)
        # Weights, activations, the result, and what ggml needs for itself.
        context = base.ggml_init(init(2 * n * k + 4 * m * (n + k) + (16 << 20), None, False))
        a = base.ggml_new_tensor_2d(context, type_id, k, n)
        b = base.ggml_new_tensor_2d(context, 0, k, m)
        base.ggml_quantize_chunk(type_id, w.ctypes.data, base.ggml_get_data(a), 0, n, k, None)
        c.memmove(base.ggml_get_data(b), x.ctypes.data, x.nbytes)
        y = base.ggml_mul_mat(context, a, b)
        graph = base.ggml_new_graph(context)
        base.ggml_build_forward_expand(graph, y)
        plan = cpu.ggml_graph_plan(graph, case.threads, None)
        work = np.zeros(plan.work_size + 64, np.uint8)
        plan.work_data = work.ctypes.data

        def run(keep=work):
            if cpu.ggml_graph_compute(graph, c.byref(plan)) != 0:
                raise RuntimeError("ggml failed")
            return base.ggml_get_data(y)

        def result(data):
            values = (c.c_float * (m * n)).from_address(data)
            return {"y": np.ctypeslib.as_array(values).reshape(m, n)}

        return Peer(f"ggml {kind}", f"llama-cpp-python {llama_cpp.__version__}", run, result)

    prepare.__name__ = f"ggml_{kind}"
    return prepare


def matmul_nbits(bits, integer, block=128):
    """MatMulNBits of ONNX Runtime with zero points of 2^(bits-1); activations of 8 bits or f32."""

    def prepare(case):
        import numpy as np
        import onnx
        import onnxruntime as ort
        from onnx import TensorProto, helper, numpy_helper

        w = case.x["w"]
        n, k = w.shape
        groups = w.reshape(n, k // block, block)
        half = 1 << (bits - 1)
        scale = np.abs(groups).max(axis=2, keepdims=True) / (half - 1 if bits > 1 else 1)
        codes = np.clip(np.rint(groups / scale) + half, 0, 2**bits - 1).astype(np.uint8)
        per_byte = 8 // bits
        packed = np.zeros((n, k // block, block // per_byte), np.uint8)
        for i in range(per_byte):
            packed |= codes[:, :, i::per_byte] << np.uint8(bits * i)
        node = helper.make_node("MatMulNBits", ["x", "b", "s"], ["y"], domain="com.microsoft", K=k, N=n,
                                bits=bits, block_size=block, accuracy_level=4 if integer else 1)
        constants = [numpy_helper.from_array(packed, "b"),
                     numpy_helper.from_array(scale.reshape(-1).astype(np.float32), "s")]
        graph = helper.make_graph([node], "nbits",
                                  [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, k])],
                                  [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, n])], constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        options = ort.SessionOptions()
        options.intra_op_num_threads = case.threads
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feed = {"x": case.x["x"]}
        kind = "int8" if integer else "f32"
        return Peer(f"ONNX Runtime {bits}-bit, {kind} activations", ort.__version__,
                    lambda: session.run(None, feed)[0], lambda y: {"y": y})

    prepare.__name__ = f"onnxruntime_{bits}_bit"
    return prepare


def torch_f32(case):
    """The product that nothing quantises, by oneMKL."""
    import torch

    torch.set_num_threads(case.threads)
    x, w = torch.from_numpy(case.x["x"].copy()), torch.from_numpy(case.x["w"].copy())

    def run():
        with torch.no_grad():
            return torch.nn.functional.linear(x, w)

    return Peer("torch f32", torch.__version__, run, lambda y: {"y": y.numpy()})


def torch_qint8(case):
    """A dynamically quantised linear layer: one step for all activations."""
    import torch

    torch.set_num_threads(case.threads)
    n, k = case.x["w"].shape
    layer = torch.nn.Linear(k, n, bias=False)
    layer.weight.data = torch.from_numpy(case.x["w"].copy())
    layer = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), dtype=torch.qint8)
    x = torch.from_numpy(case.x["x"].copy())

    def run():
        with torch.no_grad():
            return layer(x)

    return Peer("torch dynamic qint8", torch.__version__, run, lambda y: {"y": y.numpy()})


def torch_int4(case):
    """Four-bit weights in groups of 128 with bf16 activations."""
    import torch

    torch.set_num_threads(case.threads)
    x, w = torch.from_numpy(case.x["x"].copy()).bfloat16(), torch.from_numpy(case.x["w"].copy())
    n, k = w.shape
    groups = w.reshape(n, k // 128, 128)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    scale = (high - low) / 15
    codes = ((groups - low) / scale).round().clamp(0, 15).to(torch.int32).reshape(n, k)
    # The operator counts from 8: w = (code - 8) * scale + zero.
    zero = low + 8 * scale
    both = torch.stack([scale.squeeze(2), zero.squeeze(2)], 2).transpose(0, 1).contiguous().bfloat16()
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)

    def run():
        with torch.no_grad():
            return torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, 128, both)

    return Peer("torch int4, bf16 activations", torch.__version__, run, lambda y: {"y": y.float().numpy()})
