"""Surveys made of a catalogue and a service that cuts images out of the sky, one image or several per object.

A survey's script declares them as a `declaration.Cutouts`; `plan` makes the build of it: the rows of a
`declaration.CatalogueSource`, cut and written as a list; their images from a `declaration.ImageSource`, kept in TAR archives
as they come, asked for again until they are there; then partitions. Sources at hand: `sources` (a file, a TAP service),
`matched` (two services, joined by position), `hips` (hips2fits).
"""
