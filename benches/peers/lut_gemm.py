"""Products of 2 and 3 bits."""

# requires: numpy llama-cpp-python torch onnxruntime onnx
from common import serve
from low_bit import ggml, matmul_nbits, torch_f32

serve([ggml("q3_K"), ggml("q2_K"), ggml("tq2_0"), matmul_nbits(2, True), matmul_nbits(4, False), torch_f32])
