"""A device that is far away, made of the CPU: counts what is read from it, and refuses tensors of two devices in one step."""
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

FAR = torch.device('meta')  # autograd treats it as the CPU; what is computed lies in ``Far.near``
READS = ('_local_scalar_dense', 'item', 'nonzero', 'masked_select', 'equal', 'is_nonzero', 'unique2', '_unique2', 'unique_dim')
INDEXING = ('index', 'index_put', 'index_put_', '_index_put_impl_', '_unsafe_index')  # take places from the CPU, as a GPU does
COPIES = ('copy_', '_to_copy')


class Far(Tensor):
    """A tensor on the device."""

    @staticmethod
    def __new__(cls, near: Tensor):
        far = Tensor._make_wrapper_subclass(cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(),
                                            dtype=near.dtype, device=FAR)
        far.near = near
        return far

    def tolist(self):
        return self.cpu().tolist()

    def new_tensor(self, data, dtype=None):
        return torch.tensor(data, dtype=dtype or self.dtype).to(self.device)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f'{func} outside of Watch')


class Factories(TorchFunctionMode):
    """``torch.tensor`` asks no dispatch mode where it puts what it is given."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        device = kwargs.pop('device', None) if func is torch.tensor else None
        made = func(*args, **kwargs)
        return made if device is None else made.to(device)


class Watch(TorchDispatchMode):
    """Within it ``device=FAR`` is a device with data.

    Attributes:
        reads: the operations whose answer the CPU has waited for.
    """

    def __init__(self):
        super().__init__()
        self.reads: list[str] = []
        self.factories: list[Factories] = []

    def __enter__(self):
        self.factories.append(Factories())
        self.factories[-1].__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.factories.pop().__exit__(*error)

    def put(self, near: Tensor) -> Tensor:
        with self:
            return near.to(FAR)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = func._schema.name.partition('::')[2]
        tensors = list(_tensors((*args, *kwargs.values())))
        far = [one for one in tensors if isinstance(one, Far)]
        device = kwargs.get('device')
        if device is not None:
            kwargs['device'] = torch.device('cpu')
        goes_far = bool(far) if device is None else torch.device(device) == FAR
        assert all(isinstance(one, Far) or one.device != FAR for one in tensors), f'{name} is given a tensor without data'
        self._check(name, args, tensors, far)
        if self._waits(name, args, far, goes_far):
            self.reads.append(name)
        near_args = _changed(args, Far, lambda one: one.near)
        near_kwargs = {key: _changed(value, Far, lambda one: one.near) for key, value in kwargs.items()}
        if name == '_to_copy' and device is not None:  # always another tensor, as on a real device
            out = near_args[0].clone().to(**{key: value for key, value in near_kwargs.items()
                                             if key in ('dtype', 'memory_format') and value is not None})
        else:
            out = func(*near_args, **near_kwargs)
        if name == 'copy_' and not isinstance(args[0], Far):
            return args[0]
        if not goes_far or name == '_local_scalar_dense':
            return out
        out = _changed(out, Tensor, Far)
        return out if name == '_to_copy' or not far else return_and_correct_aliasing(func, args, kwargs, out)

    @staticmethod
    def _waits(name: str, args: tuple, far: list, goes_far: bool) -> bool:
        if not far:
            return False
        return (name in READS or (name == '_to_copy' and not goes_far) or (name == 'copy_' and not isinstance(args[0], Far))
                or (name in INDEXING and any(isinstance(one, Far) and one.dtype == torch.bool for one in _places(args))))

    @staticmethod
    def _check(name: str, args: tuple, tensors: list, far: list) -> None:
        if not far or name in COPIES:
            return
        places = _places(args) if name in INDEXING else ()
        others = [one for one in tensors if not isinstance(one, Far) and one.ndim and not any(one is place for place in places)]
        assert not others, f'{name} mixes tensors of the device with those of the CPU, {[tuple(one.shape) for one in others]}'


def _tensors(values):
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _changed(value, kind: type, change):
    """A value with what is of a kind, also within lists, changed."""
    if isinstance(value, kind):
        return change(value)
    return type(value)(_changed(one, kind, change) for one in value) if type(value) in (list, tuple) else value


def _places(args: tuple) -> list:
    return [one for one in args[1] if one is not None]
