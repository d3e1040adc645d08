"""Names of before the code had rooms, for one release: found by the package's `__path__`.

`.mdlus` files hold the names of the modules whose classes they store, so that those stay for longer.
"""
