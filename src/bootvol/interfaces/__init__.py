"""The plugin contract: interfaces of image sources, block backends, identities and hypervisors.

The daemon finds a plugin by its entry point (``bootvol.sources``, ``bootvol.backends``,
``bootvol.identities``, ``bootvol.hypervisors``).  The entry point loads a small descriptor
(:class:`SourcePlugin`, :class:`BackendPlugin`, :class:`IdentityPlugin`, :class:`HypervisorPlugin`).
The daemon calls the descriptor's factory once, at its start.  Only the factory may import the
driver's library.  The factory of a backend runs in a thread of its own.  If the factory hangs, the
daemon starts with the other backends, and calls the factory again while the reactor runs.  The
daemon uses the backend when such a call returns.

Rules for every method in this package:

* The core calls the method in the reactor thread.  The method must not block: blocking work goes
  through :attr:`PluginContext.threads`.
* The method is a coroutine that awaits Deferreds.  The core may cancel the coroutine at any await.
* A cancelled method first waits for the end of its work in threads and elsewhere, and closes
  everything that the call opened.  Only then does the method raise CancelledError
  (:meth:`bootvol.threads.Threads.run` works in this way).
* The method raises the errors in its docstring.  Every other exception counts as a defect of the
  plugin.

A volume's name consists of letters, digits and ``-``, with at most 64 characters.  No name is ever
used again.

``bootvol.testing`` has a contract suite for each interface.  A plugin is correct when it passes.
"""

from __future__ import annotations

from bootvol.interfaces.adoption import IAdoptingBackend, ISnapshotAdoptingBackend
from bootvol.interfaces.backends import (
    Capabilities,
    IBlockBackend,
    ICloningBackend,
    ICountingBackend,
    IGrowingBackend,
    IGuardedBackend,
    IIdentifiedBackend,
    IImageCloningBackend,
    IRoutingBackend,
    ISharingBackend,
    IVolumeReader,
    IVolumeWriter,
)
from bootvol.interfaces.hypervisors import (
    IConfiguringHypervisor,
    IHypervisor,
    IPoweringHypervisor,
    IResizingHypervisor,
)
from bootvol.interfaces.identities import IIdentity
from bootvol.interfaces.image_stores import IImageStore, IImageUpload, IStagedUpload
from bootvol.interfaces.image_takers import IImageTaker
from bootvol.interfaces.measuring import IMeasuredBackend, Room
from bootvol.interfaces.plugins import (
    BackendPlugin,
    Check,
    HypervisorPlugin,
    IClosable,
    IdentityPlugin,
    IReloadable,
    Plugin,
    PluginContext,
    SourcePlugin,
)
from bootvol.interfaces.sources import (
    IFileStream,
    IImageSource,
    IImageStream,
    ILocatedStream,
    IOpenEndedStream,
    IPartSource,
    IPrefetchingStream,
    IPrefixedStream,
    IUrlSource,
)
from bootvol.interfaces.sparse import ISparse, ISparseStream

__all__ = [
    "BackendPlugin",
    "Capabilities",
    "Check",
    "HypervisorPlugin",
    "IAdoptingBackend",
    "IBlockBackend",
    "ICloningBackend",
    "IClosable",
    "IConfiguringHypervisor",
    "ICountingBackend",
    "IFileStream",
    "IGrowingBackend",
    "IGuardedBackend",
    "IHypervisor",
    "IIdentifiedBackend",
    "IIdentity",
    "IImageCloningBackend",
    "IImageSource",
    "IImageStore",
    "IImageStream",
    "IImageTaker",
    "IImageUpload",
    "ILocatedStream",
    "IMeasuredBackend",
    "IOpenEndedStream",
    "IPartSource",
    "IPoweringHypervisor",
    "IPrefetchingStream",
    "IPrefixedStream",
    "IReloadable",
    "IResizingHypervisor",
    "IRoutingBackend",
    "ISharingBackend",
    "ISnapshotAdoptingBackend",
    "ISparse",
    "ISparseStream",
    "IStagedUpload",
    "IUrlSource",
    "IVolumeReader",
    "IVolumeWriter",
    "IdentityPlugin",
    "Plugin",
    "PluginContext",
    "Room",
    "SourcePlugin",
]
