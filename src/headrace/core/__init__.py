"""The vocabulary: pure values and rules shared by every plane. No I/O, no clock, no asyncio."""
