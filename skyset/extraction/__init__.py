"""Sources and shapes from pixels: SExtractor's quantities, Sersic fits, GalaxiesML's morphology, LDAC catalogues, SOMs.

Needs the optional package numba: ``pip install 'skyset-surveys[extraction]'``.
"""
