"""The peers' side of the protocol of benches/src/peers.rs: JSON lines in, JSON lines out.

A script lists functions that prepare a peer from a case and hand it back:

    # requires: numpy scipy
    from common import Peer, serve

    def scipy_product(case):
        import scipy, scipy.sparse as sp
        a = sp.csr_matrix((case.x["data"], case.x["indices"], case.x["indptr"]))
        return Peer("scipy", scipy.__version__, run=lambda: a @ a,
                    result=lambda c: {"data": c.data, "indices": c.indices, "indptr": c.indptr})

    serve([scipy_product])

The requirements stand on a line of their own and are pinned in requirements.txt. A function that raises
ImportError gives a row `not run (needs ...)`; one that returns None has nothing to do with that case. `run`
is what is timed: it takes nothing and returns the answer, which `result` turns into arrays by name.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any, Callable

# Last, as a script may have the name of the package that it imports.
sys.path.append(sys.path.pop(0))


@dataclass
class Case:
    """What the parent sent: its name, arrays by name (`x`), further settings, the number of threads."""

    name: str
    x: dict
    params: dict
    threads: int


@dataclass
class Peer:
    """One library on one case."""

    name: str
    version: str
    run: Callable[[], Any]
    result: Callable[[Any], dict]


def _begin(request, prepare):
    import numpy as np

    arrays = {name: np.load(path) for name, path in request["arrays"].items()}
    case = Case(request["case"], arrays, request["params"], request["threads"])
    peers, missing = {}, []
    for make in prepare:
        try:
            peer = make(case)
        except ImportError as error:
            missing.append({"name": make.__name__, "needs": error.name or str(error)})
        except Exception as error:  # A peer that cannot do a case must not stop the others.
            missing.append({"name": make.__name__, "needs": f"another case: {error}"})
        else:
            if peer is not None:
                peers[peer.name] = peer
    names = [{"name": peer.name, "version": peer.version} for peer in peers.values()]
    return peers, {"peers": names, "missing": missing}


def _run(peer, times):
    start = time.perf_counter()
    for _ in range(times):
        peer.run()
    return {"seconds": (time.perf_counter() - start) / times}


def _result(peer, folder):
    import numpy as np

    paths = {}
    for name, array in peer.result(peer.run()).items():
        paths[name] = os.path.join(folder, f"result_{name}.npy")
        np.save(paths[name], np.ascontiguousarray(array))
    return {"arrays": paths}


def serve(prepare):
    """Answers the parent until it closes the pipe. Libraries that print go to standard error."""
    folder = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peers = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "case" in request:
                peers, answer = _begin(request, prepare)
            elif "run" in request:
                answer = _run(peers[request["run"]], request["times"])
            else:
                answer = _result(peers[request["result"]], folder)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
