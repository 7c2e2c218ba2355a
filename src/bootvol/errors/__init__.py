"""The one tree of errors: what went wrong, in a form for machines and for people.

Every class has a stable ``code`` (never reused, never renamed), the HTTP ``status`` that a
dialect of the API answers with, whether trying again unchanged can help (``retryable``), and a
``remedy``: what a person can do.  A dialect turns an error into its own fault form; the reason
kept with a volume in ``error`` is the same error as an :class:`ErrorReport`.
"""

from bootvol.errors.base import *
from bootvol.errors.missing import *
from bootvol.errors.operator import *
from bootvol.errors.requests import *
from bootvol.errors.work import *
