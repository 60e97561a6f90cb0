"""Wire formats: bytes ↔ InferenceRequest/InferenceResponse. Sans-IO: no sockets, no framework types."""
