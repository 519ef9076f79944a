"""Surveys of one image an object and tables of what people, or networks, said of them, such as those of Galaxy Zoo.

A survey declares a `release.Release`; `script.script` makes a build script of it. Where to look: ``tables`` recognises its
catalogues by their columns; ``plan`` says which datasets are built of them, and of what; ``making`` builds one; ``objects``
chooses the rows that become objects; ``cut_out`` takes a dataset out of another; ``zip_by_zip`` reads images out of remote
archives; ``image_names`` knows images under other names; ``votes`` makes shares and labels.
"""
