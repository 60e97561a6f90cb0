"""Messages of the gRPC services, in a descriptor pool of their own.

``*.proto`` are written by hand; ``*_pb2.py``, ``*_pb2.pyi`` and ``descriptors.py`` are generated (``make protos``).
"""
