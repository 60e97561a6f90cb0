"""One inference request, from its head to its answer: route, admit, batch, dispatch. Knows core values only."""
