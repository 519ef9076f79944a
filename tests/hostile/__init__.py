"""Partitions and manifests from strangers: the rows, or one line that refuses them. Nothing else, whatever the bytes.

Every case is a number or a name and can be repeated alone. Cases run in worker processes, which may die or hang without
harm; the case that did it is then found. A full run, with a table of outcomes::

    python -m tests.hostile --cases 100000
    python -m tests.hostile --only 4711 text:vlen       # these cases, in full

What no reader can tell is "other values": bytes were changed inside the pixels, or an offset now points to other bytes
of the same file. The SHA-256 in the manifest tells (``skyset verify``). Here such values must at least have the declared
dtype and shape and come from the file: they never hold what lay in memory, nor a byte of a neighbouring file.
"""
