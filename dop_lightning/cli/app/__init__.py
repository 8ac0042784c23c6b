"""``dop app``: a page in the browser that restores photographs and separates tables and videos on this machine.

``command`` defines the options, ``server`` starts the server, ``routes`` has its addresses, and ``guard`` rejects
requests of others. A :class:`~.job.Job` is one file with its settings and results, ``manager`` has the queue, and
``child`` runs ``dop recover`` or ``dop separate``.
"""
