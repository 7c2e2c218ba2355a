"""Makes ``twistd bootvol`` known to twistd."""

from twisted.application.service import ServiceMaker

bootvol = ServiceMaker(
    "bootvol",
    "bootvol.tap",
    "Turns operating-system images into persistent, bootable block volumes.",
    "bootvol",
)
