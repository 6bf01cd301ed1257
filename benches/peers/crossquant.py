"""8-bit linear layers of torch and ONNX Runtime. All of them use one activation step for the whole of X."""

# requires: numpy torch onnxruntime onnx
from common import Peer, serve
from low_bit import torch_qint8


def torch_int_mm(case):
    import torch

    torch.set_num_threads(case.threads)
    x, w = torch.from_numpy(case.x["x"].copy()), torch.from_numpy(case.x["w"].copy())
    if x.shape[0] <= 16:
        return None  # Its kernel takes more than 16 rows.
    sx, sw = x.abs().max() / 127, w.abs().amax(1) / 127
    codes = torch.clamp(torch.round(w / sw[:, None]), -128, 127).to(torch.int8).t().contiguous()

    def run():
        q = torch.clamp(torch.round(x / sx), -127, 127).to(torch.int8)
        return torch._int_mm(q, codes).float() * (sx * sw)

    return Peer("torch._int_mm", torch.__version__, run, lambda y: {"y": y.numpy()})


def onnxruntime_dynamic_matmul(case):
    import numpy as np
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    w = case.x["w"]
    n, k = w.shape
    scale = (np.abs(w).max(axis=1) / 127).astype(np.float32)
    codes = np.ascontiguousarray(np.clip(np.rint(w / scale[:, None]), -127, 127).astype(np.int8).T)
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "b", "s", "z"], ["y"], domain="com.microsoft")
    constants = [
        numpy_helper.from_array(codes, "b"),
        numpy_helper.from_array(scale, "s"),
        numpy_helper.from_array(np.zeros(n, np.int8), "z"),
    ]
    graph = helper.make_graph(
        [node],
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, n])],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = case.threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": case.x["x"]}
    return Peer("ONNX Runtime DynamicQuantizeMatMul", ort.__version__, lambda: session.run(None, feed)[0],
                lambda y: {"y": y})


serve([torch_qint8, torch_int_mm, onnxruntime_dynamic_matmul])
