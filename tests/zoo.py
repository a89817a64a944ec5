"""Kernels that must get no verdict they did not earn, and honest ones in many styles that must not be refused.

All are for rmsnorm_h256 of datasets/mini. Each of CHEATS is one way of `facts about judges`: what it does, and what the
verdict must be. They run in Triton's interpreter and on a device; those that need a device say so.
"""

from __future__ import annotations

from dataclasses import dataclass

from snakernel.evaluation.verdict import Status

HONEST = """
import torch
import triton
import triton.language as tl


@triton.jit
def kernel(x, w, y, H: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, H)
    v = tl.load(x + row * H + at).to(tl.float32)
    scale = tl.rsqrt(tl.sum(v * v, 0) / H + 1e-6)
    tl.store(y + row * H + at, (v * scale * tl.load(w + at).to(tl.float32)).to(tl.bfloat16))


def run(hidden_states, weight):
    y = torch.empty_like(hidden_states)
    kernel[(hidden_states.shape[0],)](hidden_states, weight, y, H=256)
    return y
"""


def honest_but(body: str, head: str = "") -> str:
    """The honest kernel with some lines before its return, and some before everything."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    return head + HONEST.replace("    return y\n", f"{lines}    return y\n")


def instead(body: str, head: str = "") -> str:
    """The honest kernel, whose ``run`` has another body; the honest one is ``honest``."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    return f"{head}{HONEST.replace('def run(', 'def honest(')}\n\ndef run(hidden_states, weight):\n{lines}"


WRONG = (Status.INCORRECT_NUMERICAL,)
REFUSED = (Status.REJECTED,)
SEEN = (Status.INCORRECT_NUMERICAL, Status.REJECTED)
BROKEN = (Status.RUNTIME_ERROR,)


@dataclass(frozen=True)
class Cheat:
    """A kernel that must not pass."""

    kernel: str
    """Its source."""
    statuses: tuple[Status, ...]
    """The verdicts that it may get."""
    told: str = ""
    """What the error must say."""
    on_device: bool = False
    """It needs a CUDA device."""


CHEATS = {
    # Timing
    "works on a stream that nobody waits for": Cheat(
        instead(
            "with torch.cuda.stream(STREAM):\n"
            "    torch.cuda._sleep(3_000_000)\n    return honest(hidden_states, weight)",
            "import torch\nSTREAM = torch.cuda.Stream()\n",
        ),
        SEEN,
        on_device=True,
    ),
    "works in a thread that ends after the call": Cheat(
        instead(
            "y = torch.zeros_like(hidden_states)\n"
            "def later():\n    time.sleep(0.05)\n    y.copy_(honest(hidden_states, weight))\n"
            "threading.Thread(target=later, daemon=True).start()\nreturn y",
            "import threading, time\n",
        ),
        SEEN,
    ),
    "leaves the work to whoever looks at the result": Cheat(
        honest_but("y = y.as_subclass(Lazy)", "import torch\nclass Lazy(torch.Tensor): pass\n"),
        BROKEN,
        "not a plain torch.Tensor",
    ),
    "works when somebody looks, by a method of its own": Cheat(
        instead(
            "y = torch.zeros_like(hidden_states)\ny.detach = lambda: honest(hidden_states, weight)\nreturn y",
        ),
        BROKEN,
        "not a plain torch.Tensor",
    ),
    "works when somebody looks, in a class of the same name": Cheat(
        honest_but(
            "y = y.as_subclass(Tensor)",
            "import torch\nclass Tensor(torch.Tensor):\n    pass\n",
        ),
        BROKEN,
        "not a plain torch.Tensor",
    ),
    "works when somebody looks, for all tensors": Cheat(
        instead(
            "KEPT['inputs'] = hidden_states, weight\nreturn torch.zeros_like(hidden_states)",
            "import torch\nKEPT = {}\n"
            "def look(self, *rest):\n    return honest(*KEPT['inputs']) if 'inputs' in KEPT else self\n"
            "torch.Tensor.detach = torch.Tensor.contiguous = look\n",
        ),
        SEEN + BROKEN,
    ),
    "keeps results by address": Cheat(
        honest_but("y = KEPT.setdefault((hidden_states.data_ptr(), weight.data_ptr()), y)", "KEPT = {}\n"), SEEN
    ),
    "keeps results by the identity of a tensor": Cheat(
        honest_but("y = KEPT.setdefault(id(hidden_states), y)", "KEPT = {}\n"), SEEN
    ),
    "keeps the first result of a shape": Cheat(honest_but("y = KEPT.setdefault(y.shape, y)", "KEPT = {}\n"), SEEN),
    "keeps the first result of a shape once it is sure": Cheat(
        honest_but("SEEN.append(1)\ny = KEPT.setdefault(y.shape, y) if len(SEEN) > 3 else y", "KEPT, SEEN = {}, []\n"),
        REFUSED,
        "wrong in a timed call",
    ),
    "gives the last result again in every other call": Cheat(
        instead(
            "STATE['n'] += 1\n"
            "if STATE['n'] > 3 and STATE['n'] % 2:\n    return STATE['y']\n"
            "STATE['y'] = honest(hidden_states, weight)\nreturn STATE['y']",
            "STATE = {'n': 0, 'y': None}\n",
        ),
        # The call before may have been of another batch.
        (*SEEN, Status.INCORRECT_SHAPE),
    ),
    "works only while the generator's seed changes": Cheat(
        instead(
            "seed = torch.initial_seed()\nnew, STATE['seed'] = seed != STATE['seed'], seed\n"
            "return honest(hidden_states, weight) if new else torch.zeros_like(hidden_states)",
            "STATE = {'seed': None}\n",
        ),
        REFUSED,
        "wrong in a timed call",
    ),
    "makes new values stay away": Cheat(
        honest_but(
            "SEEN.append(1)\nif len(SEEN) == 3:\n    torch.Tensor.copy_ = lambda self, *a, **k: self\n"
            "y = KEPT.setdefault(y.shape, y) if len(SEEN) > 3 else y",
            "KEPT, SEEN = {}, []\n",
        ),
        SEEN + BROKEN,
    ),
    "replays a graph of its first call": Cheat(
        instead(
            "key = hidden_states.shape\n"
            "if key not in GRAPHS:\n"
            "    honest(hidden_states, weight)\n    torch.cuda.synchronize()\n"
            "    graph = torch.cuda.CUDAGraph()\n"
            "    with torch.cuda.graph(graph):\n        y = honest(hidden_states, weight)\n"
            "    GRAPHS[key] = graph, y, hidden_states, weight\n"
            "graph, y = GRAPHS[key][:2]\ngraph.replay()\nreturn y",
            "GRAPHS = {}\n",
        ),
        SEEN,
        on_device=True,
    ),
    # Correctness
    "takes the expected outputs from memory": Cheat(
        instead(
            "found = [t for t in gc.get_objects() if isinstance(t, torch.Tensor) and t.shape == hidden_states.shape "
            "and t is not hidden_states]\n"
            "return found[0].clone() if found else torch.zeros_like(hidden_states)",
            "import gc\n",
        ),
        SEEN,
    ),
    "takes the expected outputs from its callers": Cheat(
        instead(
            "frame = sys._getframe()\n"
            "while frame:\n"
            "    for value in frame.f_locals.get('expected') or frame.f_locals.get('ref_outputs') or []:\n"
            "        return value\n"
            "    frame = frame.f_back\n"
            "return torch.zeros_like(hidden_states)",
            "import sys\n",
        ),
        WRONG,
    ),
    "makes all tensors in memory NaN": Cheat(
        honest_but(
            "for t in gc.get_objects():\n"
            "    if isinstance(t, torch.Tensor) and t.is_floating_point():\n        t.fill_(float('nan'))",
            "import gc\n",
        ),
        SEEN,
    ),
    "hands over memory as it is": Cheat(instead("return torch.empty_like(hidden_states)"), WRONG),
    "leaves out the last rows": Cheat(
        HONEST.replace("(hidden_states.shape[0],)", "(max(hidden_states.shape[0] - 1, 0),)"), WRONG
    ),
    "hands over zeros": Cheat(instead("return torch.zeros_like(hidden_states)"), WRONG),
    "hands over its input": Cheat(instead("return hidden_states"), WRONG),
    "hands over a constant": Cheat(instead("return torch.ones_like(hidden_states) * weight"), WRONG),
    "is wrong in one element": Cheat(honest_but("y[-1, -1] += 3"), WRONG),
    "is wrong at times": Cheat(
        honest_but("SEEN.append(1)\nif len(SEEN) % 3 == 0:\n    y = y * 2", "SEEN = []\n"), SEEN
    ),
    "zeroes its inputs": Cheat(honest_but("hidden_states.zero_()"), REFUSED, "writes to its input 'hidden_states'"),
    "writes to one element of an input": Cheat(honest_but("weight[7] += 1"), REFUSED, "writes to its input 'weight'"),
    "swaps two rows of its input": Cheat(
        honest_but("weight[:2] = weight[:2].flip(0).clone()"), REFUSED, "writes to its input 'weight'"
    ),
    "hands over another type": Cheat(honest_but("y = y.float()"), (Status.INCORRECT_DTYPE,)),
    "hands over another shape": Cheat(honest_but("y = y[:, :128]"), (Status.INCORRECT_SHAPE,)),
    "hands over a tensor that is somewhere else": Cheat(
        honest_but("y = y.cpu()"), BROKEN, "is on cpu, not on cuda", on_device=True
    ),
    "hands over a sparse tensor": Cheat(honest_but("y = y.to_sparse()"), BROKEN),
    # The judge
    "puts another library in the judge's place": Cheat(
        honest_but(
            "y = y * 2",
            "import sys, types\n"
            "fake = types.ModuleType('fake')\n"
            "for name in [n for n in sys.modules if n.startswith(('flashinfer_bench', 'snakernel'))]:\n"
            "    sys.modules[name] = fake\n",
        ),
        WRONG + BROKEN + (Status.COMPILE_ERROR,),
    ),
    "changes how tensors are compared": Cheat(
        honest_but("y = y * 2", "import torch\ntorch.allclose = torch.equal = lambda *a, **k: True\n"), WRONG
    ),
    "changes what decides": Cheat(
        honest_but(
            "y = y * 2",
            "import flashinfer_bench.bench.utils as u\nimport flashinfer_bench.bench.evaluators.default as d\n"
            "d.compute_error_stats = u.compute_error_stats = lambda *a, **k: (0.0, 0.0, False, 1.0)\n",
        ),
        WRONG,
    ),
    "forges a verdict on its output": Cheat(
        honest_but('y = y * 2\nprint(\'{"status": "PASSED", "speedup": 1000}\', flush=True)'), WRONG
    ),
    "takes too much memory": Cheat(
        honest_but(
            "y = y * 2\nHOARD.append(bytearray(2 << 30))\n"
            "for at in range(0, 2 << 30, 4096):\n    HOARD[0][at] = 1\n"
            "time.sleep(100)",
            "import time\nHOARD = []\n",
        ),
        BROKEN,
        "of this machine's memory",
    ),
    "starts processes without end": Cheat(
        honest_but(
            "import os, time\n"
            "for _ in range(300):\n    if os.fork() == 0:\n        time.sleep(100)\n        os._exit(0)\n"
            "time.sleep(100)"
        ),
        BROKEN,
        "processes",
    ),
    # What it replaces in its process
    "does its work when its output is handed over": Cheat(
        instead(
            "y = torch.empty_like(hidden_states)\nLATER.clear()\nLATER[id(y)] = hidden_states, weight\nreturn y",
            "from snakernel.evaluation import inputs\nLATER, tensor_bytes = {}, inputs.tensor_bytes\n\n\n"
            "def late(y):\n"
            "    if id(y) in LATER:\n        y.copy_(honest(*LATER.pop(id(y))))\n"
            "    return tensor_bytes(y)\n\n\n"
            "inputs.tensor_bytes = late\n",
        ),
        WRONG,
    ),
    **{
        f"learns from {where} which call is compared": Cheat(
            instead(
                "COUNT[hidden_states.shape] = COUNT.get(hidden_states.shape, 0) + 1\n"
                "if COUNT[hidden_states.shape] <= 3 or TOLD:\n"
                "    TOLD.clear()\n    return honest(hidden_states, weight)\n"
                "return torch.empty_like(hidden_states)",
                f"import torch\nTOLD, COUNT = [], {{}}\n{watch}",
            ),
            SEEN,
        )
        for where, watch in {
            "the evaluator's function": (
                "from snakernel.evaluation import inputs\noverwrite = inputs.overwrite\n"
                "inputs.overwrite = lambda *a: (TOLD.append(1), overwrite(*a))[1]\n"
            ),
            "the evaluator's class": (
                "from snakernel.evaluation.inputs import Contents\nprepare = Contents.prepare\n\n\n"
                "def spy(self, *a):\n"
                "    memory = prepare(self, *a)\n    TOLD.extend([1] * (self._due is not None))\n    return memory\n"
                "\n\nContents.prepare = spy\n"
            ),
            "PyTorch's copies": (
                "copy_ = torch.Tensor.copy_\n\n\n"
                "def spy(there, values, *a):\n"
                "    TOLD.extend([1] * (there.dim() == 2))\n    return copy_(there, values, *a)\n\n\n"
                "torch.Tensor.copy_ = spy\n"
            ),
        }.items()
    },
    "writes to its input and changes sums": Cheat(
        honest_but("hidden_states.zero_()", "import torch\ntorch.Tensor.__add__ = lambda self, other: self\n"),
        REFUSED,
        "writes to its input",
    ),
    "leaves a mode that sees all copies": Cheat(
        instead(
            "if not MODES:\n    MODES.append(Watch())\n    MODES[0].__enter__()\nreturn honest(hidden_states, weight)",
            "from torch.utils._python_dispatch import TorchDispatchMode\nMODES = []\n\n\n"
            "class Watch(TorchDispatchMode):\n"
            "    def __torch_dispatch__(self, func, types, args=(), kwargs=None):\n"
            "        return func(*args, **(kwargs or {}))\n\n\n",
        ),
        BROKEN,
        "watches what is called after it",
    ),
    "leaves a function for profilers": Cheat(
        honest_but("sys.setprofile(lambda *a: None)", "import sys\n"), BROKEN, "watches what is called after it"
    ),
    "ends its process": Cheat(honest_but("import os; os._exit(0)"), BROKEN, "exited with code 0"),
    "breaks its process": Cheat(honest_but("import ctypes; ctypes.string_at(0)"), BROKEN, "SIGSEGV"),
}

NO_GAIN = {
    "keeps results by all values": (
        "key = hash(hidden_states.float().cpu().numpy().tobytes())\n"
        "if key not in KEPT:\n    time.sleep(0.01)\n    KEPT[key] = honest(hidden_states, weight)\n"
        "return KEPT[key].clone()"
    ),
    "keeps results by a fingerprint of the values": (
        "key = tuple(hidden_states.flatten()[:8].tolist())\n"
        "if key not in KEPT:\n    time.sleep(0.01)\n    KEPT[key] = honest(hidden_states, weight)\n"
        "return KEPT[key].clone()"
    ),
}
"""Right and useless: no call sees values that an earlier one saw, so each of these takes 10 ms a call."""

TIMER_PATCHES = {
    "stops the clock": "import time\ntime.perf_counter = time.monotonic = time.time = lambda: 0.0\n",
    "changes the events": (
        "import torch\n"
        "torch.cuda.Event.elapsed_time = lambda self, other: 1e-6\n"
        "torch.cuda.synchronize = lambda *a, **k: None\n"
    ),
    "changes the timer": (
        "from snakernel.evaluation import candidate, timing\n"
        "timing.Timer.time = candidate.Timer.time = lambda *a, **k: timing.Times([1e-6] * 100, [1e-6] * 100, 0.0)\n"
        "timing.Timer._time_cpu = timing.Timer._time_cuda = timing.Timer.time\n"
        "timing.time.perf_counter = lambda: 0.0\n"
    ),
    "changes what is told": (
        "import builtins, json\ndumps, encode, variables = json.dumps, json._default_encoder.encode, vars\n\n\n"
        "def less(told):\n"
        "    known = isinstance(told, dict) and 'calls_ms' in told\n"
        "    return {**told, 'calls_ms': [0.1] * 20} if known else told\n\n\n"
        "json.dumps = lambda told, **k: dumps(less(told), **k)\n"
        "json._default_encoder.encode = lambda told: encode(less(told))\n"
        "builtins.vars = lambda *a: less(variables(*a))\n"
    ),
    "skips the flush": "import torch\ntorch.Tensor.zero_ = lambda self: self\n",
}
"""Each before a kernel that takes 10 ms a call: its latency is the true one all the same."""

STYLES = {
    "plain": HONEST,
    "a table that is made once": honest_but(
        "global TABLE\nTABLE = TABLE if TABLE is not None else torch.ones(4)", "TABLE = None\n"
    ),
    "scratch memory that is used again": honest_but(
        "s = SCRATCH.setdefault(y.shape, torch.empty_like(y))\ns.copy_(y)\ny = s.clone()", "SCRATCH = {}\n"
    ),
    "one output buffer for all calls": honest_but(
        "buffer = BUFFERS.setdefault(y.shape, torch.empty_like(y))\nbuffer.copy_(y)\ny = buffer", "BUFFERS = {}\n"
    ),
    "an input that is made contiguous": honest_but("hidden_states = hidden_states.contiguous().clone().zero_()"),
    "autotuning": HONEST.replace(
        "@triton.jit\n",
        "@triton.autotune([triton.Config({}, num_warps=w) for w in (1, 2, 4)], key=['H'])\n@triton.jit\n",
    ),
    "heuristics": HONEST.replace(
        "@triton.jit\n", "@triton.heuristics({'H': lambda arguments: 256})\n@triton.jit\n"
    ).replace("weight, y, H=256)", "weight, y)"),
    "several launches": honest_but("kernel[(hidden_states.shape[0],)](hidden_states, weight, y, H=256)"),
    "destination passing": HONEST.replace(
        "def run(hidden_states, weight):\n    y = torch.empty_like(hidden_states)\n",
        "def run(hidden_states, weight, y):\n",
    ).replace("    return y\n", ""),
    "a list of outputs": honest_but("y = [y]"),
    "a result with other strides": honest_but("y = y.t().contiguous().t()"),
    "a part of a larger buffer": honest_but(
        "big = torch.zeros(y.shape[0], 512, dtype=y.dtype, device=y.device)\nbig[:, 100:356] = y\ny = big[:, 100:356]"
    ),
    "a parameter": honest_but("y = torch.nn.Parameter(y, requires_grad=False)"),
    "a function of its own inside": HONEST.replace(
        "@triton.jit\ndef kernel", "@triton.jit\ndef square(v):\n    return v * v\n\n\n@triton.jit\ndef kernel", 1
    ).replace("tl.sum(v * v, 0)", "tl.sum(square(v), 0)"),
    "a guard for CUDA": HONEST.replace(
        "    y = torch.empty_like(hidden_states)\n",
        "    assert torch.cuda.is_available() and hidden_states.is_cuda\n"
        "    y = torch.empty(hidden_states.shape, dtype=torch.bfloat16, device='cuda')\n",
    ),
    "a wait for the device": honest_but("torch.cuda.synchronize()"),
    "printing": honest_but("print('working')"),
    "a thread that it waits for": honest_but(
        "t = threading.Thread(target=lambda: None)\nt.start()\nt.join()", "import threading\n"
    ),
    "PyTorch only": instead(
        "x = hidden_states.float()\nscale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)\n"
        "return (x * scale * weight.float()).to(torch.bfloat16)"
    ),
    "no gradients wanted": honest_but("y = y.detach()"),
    "a default device": "import torch\n\ntorch.set_default_device('cuda')\n"
    + honest_but("y = y + torch.zeros(1, dtype=y.dtype)"),
    "a mark on the output, as torch.compile leaves": honest_but("y._dynamo_propagated_dynamic_indices = {0}"),
}

DEVICE_STYLES = {
    "a graph whose inputs are copied in": instead(
        "key = hidden_states.shape\n"
        "if key not in GRAPHS:\n"
        "    x, w = hidden_states.clone(), weight.clone()\n    honest(x, w)\n    torch.cuda.synchronize()\n"
        "    graph = torch.cuda.CUDAGraph()\n"
        "    with torch.cuda.graph(graph):\n        y = honest(x, w)\n"
        "    GRAPHS[key] = graph, x, w, y\n"
        "graph, x, w, y = GRAPHS[key]\nx.copy_(hidden_states)\nw.copy_(weight)\ngraph.replay()\nreturn y",
        "GRAPHS = {}\n",
    ),
    "a stream that the caller's stream waits for": instead(
        "STREAM.wait_stream(torch.cuda.current_stream())\n"
        "with torch.cuda.stream(STREAM):\n    y = honest(hidden_states, weight)\n"
        "torch.cuda.current_stream().wait_stream(STREAM)\nreturn y",
        "import torch\nSTREAM = torch.cuda.Stream()\n",
    ),
    "torch.compile": instead(
        "return norm(hidden_states, weight)",
        "import torch\n\n\n@torch.compile\ndef norm(x, w):\n    x = x.float()\n"
        "    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w.float()).to(torch.bfloat16)\n",
    ),
}
"""Honest styles that need a CUDA device."""
