"""A package, so that `tests.helpers` is ours although some library installs a `tests` of its own."""
