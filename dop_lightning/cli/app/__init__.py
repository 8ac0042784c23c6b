"""``dop app``: a page in the browser that restores photographs and separates tables and videos, on this machine.

``command`` has the options, ``server`` the addresses, ``guard`` what is refused before them. A
:class:`~.job.Job` is one file with its settings and results, ``manager`` has the queue, and ``child`` runs
``dop recover`` or ``dop separate``.
"""
