"""Makes the world match the spec: observe → plan → act → record."""
