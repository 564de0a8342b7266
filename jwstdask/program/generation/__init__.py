"""Generation of associations from a pool by the rules of the archive.

A rule (:mod:`~jwstdask.program.generation.level2`, :mod:`~jwstdask.program.generation.level3`) is data: which exposures
it takes, the columns in which the members of an association agree, and the ways in which an exposure can belong to
one. :mod:`~jwstdask.program.generation.grouping` groups the rows of a pool by a rule,
:mod:`~jwstdask.program.generation.closing` turns groups into associations, :mod:`~jwstdask.program.generation.pruning`
drops duplicates, and :mod:`~jwstdask.program.generation.generate` does this for the candidates of a program.
"""
