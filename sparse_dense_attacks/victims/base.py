"""What all victims of the OpenMMLab libraries share; imports none of them."""
from ..errors import InputError

__all__ = ['sample_key']


def sample_key(sample) -> str:
    """A stable id for a data sample: the data set's image id, else its index, else its path."""
    for name in ('img_id', 'sample_idx', 'img_path'):
        if sample.metainfo.get(name) is not None:
            return str(sample.metainfo[name])
    raise InputError("a data sample has none of the meta keys 'img_id', 'sample_idx', 'img_path': add one to the meta_keys of "
                     'the packing transform')
