"""A network built from settings in a file: what a `_target_` may name is checked as in any config."""

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from common.base.errors import UserError
from common.runs.check import check_targets


def built_network(settings: dict[str, Any], where: str) -> nn.Module:
    """The network with its first weights.

    Args:
        settings: its class as `_target_`, and all that its constructor takes.
        where: they stand, for messages.

    Raises:
        UserError: a class that is neither this project's nor opted in to by `import=`, or that takes other
            settings by now.
    """
    shape = settings.get("shape")
    known = {**settings, "shape": tuple(shape)} if isinstance(shape, list) else settings
    try:
        check_targets("network", settings)
        network = instantiate(known, _convert_="all")
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except InstantiationException as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f"{where}: {settings['_target_']}: {reason}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{where}: {settings['_target_']} makes no network")
    return network.eval()
