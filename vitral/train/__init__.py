"""Training: objectives, the loop, the run's state on disk.

`vitral.train(...)` is `vitral.train.run.train`: this package can be called, since it has the name
that the function has for users.
"""

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitral.train.result import Result


class _CallablePackage(types.ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> "Result":
        """Train a classifier: see `vitral.train.run.train`."""
        from vitral.train.run import train

        return train(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
