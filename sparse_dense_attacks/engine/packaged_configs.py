"""Configs inside any package, ``package::path``; mmengine finds those of a fixed list only."""
import importlib.util
from pathlib import Path

from mmengine.config import Config

__all__ = ['configs_folder']


def configs_folder(package: str) -> Path | None:
    """Where a package keeps its configs: in ``.mim/configs``, as OpenMMLab libraries do, or None."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    folder = Path(places[0], '.mim', 'configs') if places else None
    return folder if folder and folder.is_dir() else None


_mmengine_s = Config._get_cfg_path


def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
    """Path and scope of a config named in ``_base_``.

    mmengine asserts that the package is one of its own libraries, and that the distribution is
    called as it is upstream, which fails for ``mmseg::`` of the onedl-* stack. Our configs have no
    scope: their models are those of the libraries.
    """
    package, separator, name = cfg_path.partition('::')
    folder = configs_folder(package) if separator and package.isidentifier() else None
    if folder and (folder / name).is_file():
        return str(folder / name), None if package == __name__.partition('.')[0] else package
    return _mmengine_s(cfg_path, filename)


Config._get_cfg_path = staticmethod(_get_cfg_path)
