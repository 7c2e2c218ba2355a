"""The plugin contract: what image sources, block backends and identity services provide.

A plugin is found by entry point (``bootvol.sources``, ``bootvol.backends``,
``bootvol.identities``, ``bootvol.hypervisors``).  The entry point loads a small descriptor
(:class:`SourcePlugin`, :class:`BackendPlugin`, :class:`IdentityPlugin`, :class:`HypervisorPlugin`);
its factory is called once when the daemon starts, and may import the driver's library only then.
A backend's factory is called in a thread of its own: where the factory hangs, the daemon works with
the other backends, calls it again while the reactor runs, and takes the backend when it returns.

Rules that hold for every method here:

* it is called in the reactor's thread and must not block it: blocking work goes through
  :attr:`PluginContext.threads`;
* it is a coroutine that awaits Deferreds, and it may be cancelled at any await; it then raises
  CancelledError when nothing of it goes on any more, in a thread or elsewhere
  (:meth:`bootvol.threads.Threads.run` does so), and what it had opened is closed;
* it raises what its docstring names; anything else counts as a defect of the plugin;
* a volume's name is text of letters, digits and ``-``, at most 64 characters, unique for ever.

``bootvol.testing`` has a contract suite for each interface: a plugin is right when it passes.
"""

from __future__ import annotations

from bootvol.interfaces.backends import (
    Capabilities,
    IBlockBackend,
    ICloningBackend,
    IGuardedBackend,
    IIdentifiedBackend,
    IImageCloningBackend,
    ISharingBackend,
    IVolumeReader,
    IVolumeWriter,
)
from bootvol.interfaces.hypervisors import IConfiguringHypervisor, IHypervisor, IPoweringHypervisor
from bootvol.interfaces.identities import IIdentity
from bootvol.interfaces.plugins import (
    BackendPlugin,
    Check,
    HypervisorPlugin,
    IClosable,
    IdentityPlugin,
    IReloadable,
    PluginContext,
    SourcePlugin,
)
from bootvol.interfaces.sources import (
    IFileStream,
    IImageSource,
    IImageStream,
    ILocatedStream,
    IOpenEndedStream,
)
from bootvol.interfaces.sparse import ISparse, ISparseStream

__all__ = [
    "BackendPlugin",
    "Capabilities",
    "Check",
    "HypervisorPlugin",
    "IBlockBackend",
    "ICloningBackend",
    "IClosable",
    "IConfiguringHypervisor",
    "IFileStream",
    "IGuardedBackend",
    "IHypervisor",
    "IIdentifiedBackend",
    "IIdentity",
    "IImageCloningBackend",
    "IImageSource",
    "IImageStream",
    "ILocatedStream",
    "IOpenEndedStream",
    "IPoweringHypervisor",
    "IReloadable",
    "ISharingBackend",
    "ISparse",
    "ISparseStream",
    "IVolumeReader",
    "IVolumeWriter",
    "IdentityPlugin",
    "PluginContext",
    "SourcePlugin",
]
