"""An archive of made-up galaxies: files in the layout of Galaxy Zoo: 3D and a server that hands them out.

`gz3d` draws the galaxies and writes the files, `server` serves a folder over HTTP with faults on demand, and
``python -m skyset.testing`` does both from the command line.
"""
