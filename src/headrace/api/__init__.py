"""The management API: what is served, how it fares, and why, for people and for machines."""
