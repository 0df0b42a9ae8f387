"""Tells on a CPU what would make the host wait for a GPU."""

from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    "_local_scalar_dense",  # .item(), float(tensor), if tensor
    "_linalg_check_errors",
    "is_nonzero",
    "equal",
    "nonzero",  # the result's shape depends on values
    "masked_select",
    "_unique2",
    "unique_consecutive",
}


class ForbidSynchronisation(TorchDispatchMode):
    """Inside it, an operation that reads a tensor's values on the host is an AssertionError."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in WAITING, f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_"):
            masks = [index for index in args[1] if index is not None and str(index.dtype) == "torch.bool"]
            assert not masks, f"{name} with a mask waits for the device"
        return func(*args, **(kwargs or {}))
