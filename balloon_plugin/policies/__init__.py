"""The built-in policies, each its own module and entry point like any stranger's."""
