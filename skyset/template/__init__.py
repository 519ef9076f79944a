"""A survey of somebody's own: the files it begins as, and ``skyset new``, which writes them with what it found."""
