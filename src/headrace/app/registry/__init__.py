"""The commands of the registry, wherever it is: on a state of this process or through the server that owns it."""
