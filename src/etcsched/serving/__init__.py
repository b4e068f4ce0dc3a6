"""What the daemons serve over HTTP: health and metrics, and an agent the output of its runs."""
