"""The tree of all errors, for machines and for people.

Every class has a stable ``code`` (never reused, never renamed).  ``retryable`` tells whether the
same request may succeed later.  ``remedy`` tells a person how to proceed.  Each dialect of the API
turns an error into its own HTTP status and fault format.  A volume in ``error`` stores the same
error as an :class:`ErrorReport`.
"""

from bootvol.errors.access import *
from bootvol.errors.attachments import *
from bootvol.errors.base import *
from bootvol.errors.copies import *
from bootvol.errors.images import *
from bootvol.errors.missing import *
from bootvol.errors.operator import *
from bootvol.errors.quotas import *
from bootvol.errors.requests import *
from bootvol.errors.servers import *
from bootvol.errors.storage import *
from bootvol.errors.work import *
