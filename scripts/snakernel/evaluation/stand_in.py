"""The CPU as a stand-in for a CUDA device, so that kernels written for one run unchanged in Triton's interpreter.

Kernels ask ``tensor.is_cuda`` or ``torch.cuda.is_available()`` before they launch; without a stand-in they refuse, or
fall back on PyTorch and pass without having run a line of Triton.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")


class CudaStandIn(TorchFunctionMode):
    """While it is entered, CPU tensors call themselves CUDA tensors, and what is to be on CUDA is made on the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # == and not `is`: a getter is made anew at each look.
        if func == torch.Tensor.is_cuda.__get__:
            return True
        if func == torch.Tensor.is_cpu.__get__:
            return False
        if func == torch.Tensor.device.__get__:
            return CUDA
        if func is torch.Tensor.get_device:
            return 0
        if func in (torch.Tensor.cuda, torch.Tensor.cpu, torch.Tensor.pin_memory):
            return args[0]
        if func is torch.Tensor.is_pinned:
            return False
        return func(*(self._on_cpu(one) for one in args), **{name: self._on_cpu(one) for name, one in kwargs.items()})

    @staticmethod
    def _on_cpu(value: Any) -> Any:
        if isinstance(value, torch.device):
            return CPU if value.type == "cuda" else value
        if isinstance(value, str) and (value == "cuda" or value.startswith("cuda:")):
            return CPU
        return value


def stand_in_for_cuda() -> CudaStandIn:
    """Replace what ``torch.cuda`` says of the device, in this process, and return the mode to run a kernel in.

    Triton's autotuner asks the device's driver for a timer; here it takes the first of its configurations.
    """
    from triton.runtime.autotuner import Autotuner

    Autotuner.do_bench = property(lambda self: lambda kernel_call, quantiles: [0.0] * len(quantiles))
    properties = SimpleNamespace(
        name="Triton's interpreter",
        major=9,
        minor=0,
        multi_processor_count=1,
        total_memory=16 * 2**30,
        warp_size=32,
        max_threads_per_multi_processor=2048,
        shared_memory_per_block=48 * 2**10,
        shared_memory_per_block_optin=227 * 2**10,
        shared_memory_per_multiprocessor=228 * 2**10,
        regs_per_multiprocessor=65536,
        L2_cache_size=50 * 2**20,
    )
    told = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: properties.name,
        "get_device_capability": lambda device=None: (properties.major, properties.minor),
        "get_device_properties": lambda device=None: properties,
        "is_bf16_supported": lambda including_emulation=True: True,
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "device": lambda device=None: contextlib.nullcontext(),
        "current_stream": lambda device=None: SimpleNamespace(cuda_stream=0, synchronize=lambda: None),
    }
    for name, function in told.items():
        setattr(torch.cuda, name, function)
    return CudaStandIn()
