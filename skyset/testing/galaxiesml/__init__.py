"""A simulated sky of galaxies with known truth, in the form of GalaxiesML, rendered by GalSim.

    from skyset.testing.galaxiesml.sky import GalSimSky
    sky = GalSimSky(galaxies=2000, seed=0)
    sky.truth                       # what each galaxy is; sky.catalogue() is what a survey would say of it

`population` draws the galaxies, `colours` gives them magnitudes from GalSim's spectra and passbands, `catalogue` writes them
down as HSC's database would, `sky` renders them, `published` writes files in the published form, `recovery` compares
measured with true shapes. ``python -m skyset.testing.galaxiesml --help`` does it from the command line.

Two renderers of galaxies stand in skyset and share nothing: this one, and ``skyset.extraction.simulate``.
"""
