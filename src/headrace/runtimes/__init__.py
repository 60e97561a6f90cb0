"""Model frameworks, one file each. Imported only inside worker processes."""
