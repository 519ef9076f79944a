"""Samples in TAR archives: written so that a kill at any moment loses nothing that was complete, and read by offset.

An archive holds samples as WebDataset does: members that follow each other and share a name up to the first dot.
`read` finds and reads them, `sink` writes them, `ledger` keeps the list of each archive, `keys` a large set of names.
"""
