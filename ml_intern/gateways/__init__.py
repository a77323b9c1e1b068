"""The outside world turned into operations, events turned into messages."""
