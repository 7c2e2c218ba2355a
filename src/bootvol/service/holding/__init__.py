"""Holds of other systems on volumes: the attachments of Cinder's API.

:mod:`.rules` has the rules, :mod:`.holds` the calls on single holds, and :mod:`.by_hand` the older
calls on whole volumes.

A hold protects the volume: as long as any hold exists, the volume is neither deleted, nor extended,
nor given to another server or tenant.  The status of the volume follows its holds, in the same
transaction.  Each transaction locks the volume first, so calls on one volume take turns, also in
several daemons.
"""
