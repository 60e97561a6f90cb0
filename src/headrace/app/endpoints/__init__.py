"""Endpoints as they shall be: from files and commands to records, and from records to what runs."""
