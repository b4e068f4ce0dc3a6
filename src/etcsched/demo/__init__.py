"""The demonstration: a real cluster, real kills, and a verdict from what really happened."""
