"""Contract suites for plugin authors, with a backend and a hypervisor in memory that pass them.

A function creates each suite.  A test module gives the suite a name, and pytest (with
pytest-twisted) collects the suite::

    from bootvol.testing.backends import make_block_backend_tests

    TestMine = make_block_backend_tests(lambda context, folder: MyBackend(context.name, folder))

To test the users of a plugin, use plugins that fail.  The wrappers of :mod:`bootvol.testing.faults`
make any backend or source fail.  :mod:`bootvol.testing.web` is a web server with many faults.

Requires the extra ``bootvol[testing]``.
"""
