"""Products of 6 and 8 bits."""

# requires: numpy llama-cpp-python torch onnxruntime onnx
from common import serve
from low_bit import ggml, matmul_nbits, torch_f32, torch_qint8

serve([ggml("q6_K"), ggml("q8_0"), ggml("q4_K"), matmul_nbits(8, True), matmul_nbits(4, True), torch_qint8, torch_f32])
