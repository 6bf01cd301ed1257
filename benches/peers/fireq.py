"""Products of 4 bits."""

# requires: numpy llama-cpp-python torch onnxruntime onnx
from common import serve
from low_bit import ggml, matmul_nbits, torch_f32, torch_int4

serve([ggml("q4_0"), ggml("q4_K"), matmul_nbits(4, True), matmul_nbits(4, False), torch_int4, torch_f32])
