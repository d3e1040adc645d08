"""A training on a machine that says it has a GPU: tensors that claim to lie on cuda:0 and compute
on the CPU.

    python -m tests.pretend_cuda [--no-pictures] [overrides of conf/]

trains, then evaluates, as train.py does; exit status 77 where torch does not let us pretend.

Where tensors of both kinds meet in an operation, it raises what CUDA would raise (but for some with
a single number on the CPU); NumPy refuses those that claim to lie there. Machines without a GPU
thus find the tensor that was left behind. Kernels, streams, memory, mixed precision and speed are
not pretended: they need the real thing.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CANNOT_PRETEND = 77
GPU = torch.device("cuda", 0)
aten = torch.ops.aten
#: What CUDA lets tensors of the two kinds meet in: copies, and indices on the CPU.
COPIES = (aten._to_copy, aten.copy_)
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
#: Where even a single number on the CPU is refused.
JOINS = (aten.stack, aten.cat)


class Claimed(torch.Tensor):
    """Wraps a CPU tensor, `held`. To torch's own code its device is meta, which has no guards that
    would look for a driver.
    """

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )

    def __init__(self, held):
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: GPU)
    is_cuda, is_meta, is_cpu = (
        property(lambda self: True),
        property(lambda self: False),
        property(lambda self: False),
    )

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    def __getitem__(self, key):
        return super().__getitem__(indices(key))

    def __setitem__(self, key, value):
        super().__setitem__(indices(key), value)

    def __deepcopy__(self, memo):
        copied = Claimed(self.detach().held.clone())
        return torch.nn.Parameter(copied) if isinstance(self, torch.nn.Parameter) else copied

    def tolist(self):
        return self.detach().held.tolist()

    def numpy(self, **_):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor"
            " to host memory first."
        )

    __array__ = numpy


def on_gpu(device) -> bool:
    return device is not None and torch.device(device).type in ("cuda", "meta")


def indices(key):
    """Lists in brackets as tensors: torch's own conversion goes round every mode."""
    if isinstance(key, tuple):
        return tuple(map(indices, key))
    return torch.tensor(key, device=GPU) if isinstance(key, (list, np.ndarray)) else key


def dispatch(func, args, kwargs):
    """Run on the CPU; the result claims what CUDA's would."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    claimed = [t for t in tensors if isinstance(t, Claimed)]
    kind = func.overloadpacket
    others = [t for t in tensors if not isinstance(t, Claimed) and (t.dim() > 0 or kind in JOINS)]
    if any(t.device.type == "meta" for t in others):
        raise NotImplementedError(f"{func}: a tensor was made behind our back")
    wrong = claimed and others and kind not in COPIES
    if kind in INDEXING:
        values = args[2:3] if kind is not aten.index else ()
        wrong = any(
            isinstance(v, Claimed) != isinstance(args[0], Claimed) and v.dim() > 0 for v in values
        ) or (claimed and not isinstance(args[0], Claimed))
    if wrong:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0"
            f" and cpu! ({func}, shapes {[tuple(t.shape) for t in tensors]})"
        )
    device = kwargs.get("device")
    claims = (
        isinstance(args[0], Claimed)
        if kind is aten.copy_
        else on_gpu(device)
        if device is not None
        else bool(claimed)
    )

    def held(value):
        return value.held if isinstance(value, Claimed) else value

    options = {
        **tree_map(held, kwargs),
        **({"device": torch.device("cpu")} if device is not None else {}),
        **({"pin_memory": None} if "pin_memory" in kwargs else {}),
    }
    out = func(*tree_map(held, args), **options)
    known = {id(t.held): t for t in claimed}

    def wrap(value):
        return known[id(value)] if id(value) in known else Claimed(value)

    return tree_map(
        lambda value: wrap(value) if isinstance(value, torch.Tensor) and claims else value, out
    )


class PretendCuda(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


def take_over() -> None:
    """Replace what would ask a driver."""
    silent = (
        "_lazy_init",
        "set_device",
        "synchronize",
        "empty_cache",
        "reset_peak_memory_stats",
        "manual_seed_all",
        "set_rng_state_all",
    )
    answers = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": "pretended",
        "get_device_properties": SimpleNamespace(total_memory=1 << 28),
        "max_memory_allocated": 0,
        "memory_allocated": 0,
        "get_rng_state_all": [],
        **dict.fromkeys(silent),
    }
    for name, answer in answers.items():  # a function each: torch keeps them apart by identity
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    tensor, as_tensor, save, load = torch.tensor, torch.as_tensor, torch.save, torch.load

    def there(made, device):
        return made.to(GPU) if on_gpu(device) else made

    torch.tensor = lambda data, *, dtype=None, device=None, **rest: there(
        tensor(data, dtype=dtype, **rest), device
    )
    torch.as_tensor = lambda data, dtype=None, device=None: (
        data.to(dtype or data.dtype)
        if isinstance(data, Claimed)
        else there(as_tensor(data, dtype=dtype), device)
    )
    torch.Tensor.pin_memory = lambda self, *a: self
    torch.optim.Optimizer._accelerator_graph_capture_health_check = lambda self: None
    torch.__future__.set_overwrite_module_params_on_conversion(True)

    def on_cpu(value):
        return value.detach().held if isinstance(value, Claimed) else value

    torch.save = lambda value, *a, **k: save(tree_map(on_cpu, value), *a, **k)
    torch.load = lambda *a, map_location=None, **k: load(*a, map_location="cpu", **k)


def main(overrides: list[str], pictures: bool = True) -> None:
    """pictures: with the sections of samples, which take most of the time."""
    take_over()
    try:
        with PretendCuda():
            there, here = torch.ones(3, device=GPU), torch.ones(3)
            able = there.device == GPU and (there * 2 + 1).cpu().tolist() == [3.0] * 3
            try:
                there + here
            except RuntimeError:
                pass
            else:
                able = False
    except Exception as error:  # whatever another torch makes of it
        print(f"cannot pretend with torch {torch.__version__}: {error}")
        sys.exit(CANNOT_PRETEND)
    if not able:
        print(f"cannot pretend with torch {torch.__version__}")
        sys.exit(CANNOT_PRETEND)

    from physics_hybrid.evidence.bench import configuration
    from physics_hybrid.problems.potential import figures
    from physics_hybrid.run.train import train

    if not pictures:
        figures.slices = lambda batch, phi, phi_a, path, title: path
    with PretendCuda():
        train(configuration(["training.device=cuda", *overrides]))


if __name__ == "__main__":
    words = sys.argv[1:]
    main([w for w in words if w != "--no-pictures"], "--no-pictures" not in words)
