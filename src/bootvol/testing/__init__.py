"""For plugin authors: the contract suites, and a backend and a hypervisor in memory that pass them.

Each suite is made by a function and named in a test module, where pytest (with pytest-twisted)
finds it::

    from bootvol.testing.backends import make_block_backend_tests

    TestMine = make_block_backend_tests(lambda context, folder: MyBackend(context.name, folder))

What uses a plugin is tested with plugins that fail: the wrappers of
:mod:`bootvol.testing.faults` make any backend and any source do so;
:mod:`bootvol.testing.web` is a web server that behaves badly.

Needs the extra ``bootvol[testing]``.
"""
