"""The library behind the snakernel workflow: one package, shared by every script."""
