"""The one object per process: ``runtime`` wires it, ``roles`` and ``commands`` tell what kind of process this is.

Other rooms import ``get``, ``install``, ``is_installed`` and ``Runtime`` from here.
"""

from tenant_router.runtime.runtime import Runtime, get, install, is_installed

__all__ = ["Runtime", "get", "install", "is_installed"]
