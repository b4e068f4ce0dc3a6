"""What tells right from wrong: it judges a recorded history, and shares no decision with what it
judges (docs/testing.md)."""
