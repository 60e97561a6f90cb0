"""The settings of ``headrace serve``: where they come from, what they may be, their documentation."""
