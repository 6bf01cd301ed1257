"""Blocks of GGUF files to f32 by the format's own Python package."""

# requires: numpy gguf
from common import Peer, serve


def gguf_dequantize(case):
    import importlib.metadata

    import gguf

    blocks = case.x["blocks"]
    kind = gguf.GGMLQuantizationType[case.params["type"]]
    return Peer("gguf", importlib.metadata.version("gguf"), lambda: gguf.dequantize(blocks, kind),
                lambda w: {"w": w})


serve([gguf_dequantize])
