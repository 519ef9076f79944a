"""Sources and shapes from pixels: SExtractor's quantities, Sersic fits, GalaxiesML's morphology, LDAC catalogues, SOMs.

``detect`` measures sources with numba where that is installed (``pip install 'skyset-surveys[extraction]'``), else with sep;
``sersic``, ``morphology``, ``som`` and ``simulate`` need numba.
"""
