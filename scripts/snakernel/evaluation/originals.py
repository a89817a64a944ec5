"""What a kernel finds in its process: nothing of this project by its name, and what it replaces is put back.

Python lets a module replace the functions of any other. A kernel that replaced one of those that draw its inputs, hand
over its outputs or tell its times would learn which calls are looked at, or do its work in none that is timed.
"""

from __future__ import annotations

import builtins
import inspect
import json
import multiprocessing.connection
import operator
import os
import pickle
import struct
import sys
import time
from collections.abc import Iterator
from types import CodeType, ModuleType
from typing import Any

import torch
from flashinfer_bench.bench import utils
from flashinfer_bench.data import Definition, Workload
from torch.utils._device import DeviceContext

PLACES = (
    *(builtins, json, json.decoder, json.encoder, multiprocessing.connection, os, pickle, struct, time),
    *(json.decoder.JSONDecoder, json.encoder.JSONEncoder),
    *multiprocessing.connection.Connection.__mro__[:-1],
    *(torch, torch.Tensor, torch.cuda, torch.cuda.Event, torch.random, DeviceContext),
    *(utils, Definition, Workload),
)
"""Modules and classes whose functions are used around a kernel's calls."""
LARGE = (builtins, os, torch, torch.Tensor, torch.cuda)
"""Those of which only the names count that the code around a kernel's calls has, and Python's own: operators."""


class Originals:
    """The functions and classes that are in some modules and classes now."""

    def __init__(self, used: frozenset[str]):
        """``used``: the names of :func:`names_used`."""
        self._is, self._all, self._map, self._set, self._delete = operator.is_, all, map, setattr, delattr
        self._places = []
        for place in PLACES:
            there = vars(place)
            names = [name for name, value in there.items() if _is_code(name, value)]
            bases = place.__mro__[1:] if isinstance(place, type) else ()
            inherited = {name for base in bases for name in vars(base)} - there.keys()
            if place in LARGE:
                names = [name for name in names if name in used or name.startswith("__")]
                inherited = {name for name in inherited if name in used or name.startswith("__")}
            values = tuple(there[name] for name in names)
            self._places.append((place, there, tuple(names), values, frozenset(inherited)))

    def restore(self) -> None:
        """Put back what has been replaced, and remove what hides something inherited."""
        for place, there, names, values, inherited in self._places:
            if not self._all(self._map(self._is, self._map(there.get, names), values)):
                for name, value in zip(names, values, strict=True):
                    if there.get(name) is not value:
                        self._set(place, name, value)
            if not inherited.isdisjoint(there):
                for name in inherited.intersection(there):
                    self._delete(place, name)


def forget_modules() -> None:
    """Make this project's modules unknown by their names: who imports one gets another copy of it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "snakernel"]:
        del sys.modules[name]


class Watchers:
    """What watches the calls of others: PyTorch's modes, and Python's functions for debuggers and profilers."""

    def __init__(self) -> None:
        self._dispatch, self._functions = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
        self._at, self._kinds = torch._C._get_function_stack_at, (DeviceContext,)
        self._trace, self._profile = sys.gettrace, sys.getprofile

    def now(self) -> tuple[Any, ...]:
        """Those in force; a default device is a mode that watches nothing."""
        modes = [self._at(index) for index in range(self._functions())]
        others = [id(mode) for mode in modes if type(mode) not in self._kinds]
        return self._dispatch(), others, self._trace(), self._profile()


def _is_code(name: str, value: Any) -> bool:
    if name in ("__class__", "__dict__", "__weakref__") or "pydantic" in name:
        return False
    return callable(value) or isinstance(value, (ModuleType, classmethod, property))


def names_used(*modules: ModuleType) -> frozenset[str]:
    """All names in the sources of some modules, and of flashinfer-bench's that draws inputs."""
    sources = [inspect.getsource(module) for module in (*modules, utils)]
    return frozenset(name for source in sources for name in _names(compile(source, "", "exec")))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
