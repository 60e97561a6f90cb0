"""Where workers run: a backend only starts, stops and lists them."""
